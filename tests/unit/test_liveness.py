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

FAILURES = ("signal", "watchdog", "exit-code", "core-dump", "oom-kill", "timeout", "protocol")


def end(result, code="killed", status="KILL"):
    return ServiceEnd(result=result, code=code, status=status)


def test_after_a_good_stop_agents_end_too():
    assert why_kept(end("success", "exited", "0"), stopping=False) is None


@pytest.mark.parametrize("result", FAILURES)
def test_after_a_failure_agents_go_on_for_the_next_daemon_unless_it_was_stopping(result):
    kept = why_kept(end(result), stopping=False)
    assert kept is not None
    assert result in kept
    assert why_kept(end(result), stopping=True) is None


@pytest.mark.parametrize("stopping", [True, False])
@pytest.mark.parametrize("result", ["success", "exit-code", "watchdog"])
def test_a_daemon_that_left_its_agents_to_the_next_one_is_taken_at_its_word(result, stopping):
    left = end(result, "exited", str(KEEP_AGENTS_STATUS))
    assert why_kept(left, stopping=stopping) == "the daemon left its agents to the next one"


def test_a_signal_of_that_number_is_not_that_status():
    assert why_kept(end("success", "killed", "75"), stopping=False) is None
