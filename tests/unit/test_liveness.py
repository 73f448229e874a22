"""When the reaper may act: by lock and heartbeat, and after a service has ended."""

import pytest

from factoryd.core.errors import KEEP_AGENTS_STATUS
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.liveness import (
    Alive,
    Dead,
    Doubtful,
    Holder,
    Hung,
    ServiceEnd,
    judge,
    why_kept,
)
from factoryd.core.model import ProcessIdentity

NOW = 1000.0
NOTHING = Doubtful(reason="there is no heartbeat")


def beat(age_s=1.0, pid=7, status="running"):
    return Heartbeat(
        pid=pid,
        start_ticks=8,
        boot_id="b",
        status=status,
        progress=1,
        interval_s=15.0,
        stale_after_s=60.0,
        wall=1e9,
        boottime=NOW - age_s,
    )


@pytest.mark.parametrize("seen", [beat(), beat(3600.0), beat(status="stopping"), NOTHING])
def test_a_lock_that_is_free_is_no_daemon_whatever_the_heartbeat_says(seen):
    assert judge(None, seen, NOW) == Dead()


@pytest.mark.parametrize("status", ["starting", "running", "stopping"])
def test_a_held_lock_and_a_fresh_heartbeat_are_a_daemon_that_lives(status):
    verdict = judge(Holder(pid=7), beat(59.9, status=status), NOW)
    assert isinstance(verdict, Alive)
    assert "pid 7" in verdict.reason
    assert status in verdict.reason


@pytest.mark.parametrize("status", ["starting", "running", "stopping"])
def test_a_held_lock_and_a_stale_heartbeat_are_a_daemon_that_hangs(status):
    verdict = judge(Holder(pid=7), beat(60.0, status=status), NOW)
    assert isinstance(verdict, Hung)
    assert verdict.identity == ProcessIdentity(pid=7, start_ticks=8, boot_id="b")
    assert "60 s old" in verdict.reason


@pytest.mark.parametrize("holder", [Holder(pid=7), Holder(pid=None)])
def test_a_held_lock_without_a_believable_heartbeat_hangs_and_nobody_knows_who(holder):
    verdict = judge(holder, NOTHING, NOW)
    assert isinstance(verdict, Hung)
    assert verdict.identity is None


@pytest.mark.parametrize("holder", [Holder(pid=6), Holder(pid=None)])
@pytest.mark.parametrize("age_s", [1.0, 3600.0])
def test_a_heartbeat_of_another_than_the_locks_holder_proves_nothing(holder, age_s):
    verdict = judge(holder, beat(age_s), NOW)
    assert isinstance(verdict, Hung)
    assert verdict.identity is None


def test_another_reaper_at_work_is_waited_for_and_not_killed():
    verdict = judge(Holder(pid=7, reaping=True), beat(3600.0), NOW)
    assert isinstance(verdict, Alive)
    assert "factoryd reap (pid 7)" in verdict.reason


# ----------------------------------------------------------------------------------- after a stop

FAILED = ("signal", "watchdog", "exit-code", "core-dump", "oom-kill", "protocol", "resources")
"""What `$SERVICE_RESULT` says of a service that failed (systemd.exec(5)), timeouts apart."""

BEATS = ("starting", "running", "stopping", None)
LEFT = "the daemon left its agents to the next one"


def end(result, code="killed", status="KILL"):
    return ServiceEnd(result=result, code=code, status=status)


@pytest.mark.parametrize("beat", BEATS)
@pytest.mark.parametrize(("code", "status"), [("exited", "0"), ("killed", "TERM")])
def test_after_a_good_stop_agents_end_too(code, status, beat):
    assert why_kept(end("success", code, status), beat) is None


@pytest.mark.parametrize("beat", ["starting", "running", None])
@pytest.mark.parametrize("result", FAILED)
def test_after_a_failure_agents_go_on_for_the_next_daemon(result, beat):
    kept = why_kept(end(result), beat)
    assert kept is not None
    assert result in kept


@pytest.mark.parametrize("result", [*FAILED, "timeout"])
def test_agents_of_a_daemon_that_failed_while_it_stopped_end(result):
    assert why_kept(end(result), "stopping") is None


def test_agents_of_a_daemon_that_did_not_even_begin_to_stop_when_told_to_end():
    assert why_kept(end("timeout"), "running") is None


@pytest.mark.parametrize("beat", ["starting", None])
def test_agents_of_a_daemon_that_was_not_ready_in_time_go_on(beat):
    kept = why_kept(end("timeout", "killed", "ABRT"), beat)
    assert kept is not None
    assert "timeout" in kept


@pytest.mark.parametrize("beat", BEATS)
@pytest.mark.parametrize("result", ["success", "timeout", *FAILED])
def test_a_daemon_that_left_its_agents_to_the_next_one_is_taken_at_its_word(result, beat):
    assert why_kept(end(result, "exited", str(KEEP_AGENTS_STATUS)), beat) == LEFT


@pytest.mark.parametrize("code", ["killed", "dumped"])
def test_a_signal_of_that_number_is_not_that_status(code):
    assert why_kept(end("success", code, str(KEEP_AGENTS_STATUS)), "running") is None
