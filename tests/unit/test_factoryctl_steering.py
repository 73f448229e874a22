"""The verbs freeze, thaw, restart and doctor, against a daemon that says what a test tells it to."""

import json
import sys
import time

import msgspec
import pytest
import trio

from factoryctl import __main__ as ctl_main
from factoryctl.checks import daemon_check, in_force, unheard_check
from factoryctl.errors import Garbled, NotRunning
from factoryctl.layout import lay_out, plain_checkup, plain_frost
from factoryctl.offline import Verdict as Judgement
from factoryctl.verbs import restart as restart_module
from factoryd.wire.answers import (
    ExplainReply,
    FindingView,
    FrostReply,
    PauseReply,
    RetryReply,
    ShutdownReply,
)
from factoryd.wire.checkup import Check, Checkup, Verdict
from factoryd.wire.framing import INTERFACE
from factoryd.wire.messages import Reason, encode_error, encode_reply
from tests.fakes.daemon import Act, ScriptedDaemon
from tests.unit.ctl import Ctl, issue, status
from tests.unit.test_factoryctl_layout import NOW
from tests.unit.test_factoryctl_offline import beat


@pytest.fixture
async def daemon(tmp_path, nursery):
    scripted = ScriptedDaemon(tmp_path / "control.sock")
    await nursery.start(scripted.serve)
    return scripted


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path / "control.sock")


def started(moment, adopted=0, **changes):
    picture = status()
    view = msgspec.structs.replace(
        picture.daemon, started_at=moment, adopted_runs=adopted, **changes
    )
    return encode_reply(msgspec.structs.replace(picture, daemon=view))


# --------------------------------------------------------------------------------- freeze, thaw


async def test_freeze_says_how_many_agents_stand_still(daemon, ctl):
    daemon.when("Freeze", encode_reply(FrostReply(issue="AR-255", runs=2, late=0)))
    done = await ctl("freeze", "ar-255", "--reason", "lunch")
    assert (done.returncode, done.stdout) == (0, b"AR-255  frozen, 2 of 2 runs\n")
    assert daemon.parameters() == {"target": "ar-255", "reason": "lunch"}


async def test_what_does_not_stand_still_is_a_failure_that_is_told(daemon, ctl):
    daemon.when("Freeze", encode_reply(FrostReply(issue="AR-255", runs=1, late=1)))
    done = await ctl("--json", "freeze", "AR-255")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"issue": "AR-255", "runs": 1, "late": 1}
    assert b"1 of its agents' runs could not be frozen yet" in done.stderr


async def test_thaw_asks_for_the_thaw(daemon, ctl):
    daemon.when("Thaw", encode_reply(FrostReply(issue="AR-255", runs=1, late=0)))
    done = await ctl("thaw", "ar-255-impl")
    assert (done.returncode, done.stdout) == (0, b"AR-255  thawed, 1 of 1 runs\n")
    assert daemon.parameters() == {"target": "ar-255-impl"}


def test_a_frozen_issue_shows_as_one_with_its_reason():
    picture = lay_out(status(issue(frozen=True, reason="lunch")), NOW)
    assert picture.rows[0].cells[1] == "running/frozen"
    assert picture.rows[0].cells[-1].startswith("lunch | ")
    evil = FrostReply(issue="A\x1b[31m", runs=0, late=0)
    assert plain_frost(evil, "frozen") == "A\\x1b[31m  frozen, 0 of 0 runs"


# -------------------------------------------------------------------------------- pause, resume


@pytest.mark.parametrize(
    ("verb", "reply", "said"),
    [
        ("pause", PauseReply(paused=True, reason="x\x1b", changed=True), "is paused: x\\x1b"),
        ("pause", PauseReply(paused=True, reason="x", changed=False), "is paused already: x"),
        ("resume", PauseReply(paused=False, reason=None, changed=True), "goes on"),
        ("resume", PauseReply(paused=False, reason=None, changed=False), "was not paused"),
    ],
)
async def test_pause_and_resume_say_how_it_is_now(daemon, ctl, verb, reply, said):
    daemon.when(verb.title(), encode_reply(reply))
    done = await ctl(verb)
    assert (done.returncode, done.stdout.decode()) == (0, f"dispatching {said}\n")


# -------------------------------------------------------------------------------------- explain


async def test_explain_is_a_verdict_and_a_table(daemon, ctl):
    checks = (
        FindingView(check="unknown issue", passed=False, detail="nobody\x1b knows it"),
        FindingView(check="out of scope", passed=None, detail="nothing is known of it"),
        FindingView(check="paused", passed=True, detail="dispatching goes on"),
    )
    reply = ExplainReply(issue="Z-9", state=None, verdict="unknown issue: ...", checks=checks)
    daemon.when("Explain", encode_reply(reply))
    done = await ctl("explain", "Z-9")
    assert done.stdout.decode().splitlines() == [
        "Z-9 (not in the ledger): unknown issue: ...",
        "",
        "against it may stand  answer  because",
        "unknown issue         FAILED  nobody\\x1b knows it",
        "out of scope          -       nothing is known of it",
        "paused                passed  dispatching goes on",
    ]


# ---------------------------------------------------------------------------------------- retry


async def test_retry_names_the_issue_that_begins_anew(daemon, ctl):
    daemon.when("Retry", encode_reply(RetryReply(issue="AR-255")))
    done = await ctl("retry", "ar-255-impl", "--reason", "mended")
    assert done.stdout == b"AR-255  ready again, with all its attempts\n"
    assert daemon.parameters() == {"target": "ar-255-impl", "reason": "mended"}


# -------------------------------------------------------------------------------------- restart


async def test_restart_waits_for_a_daemon_that_was_started_since(daemon, ctl):
    daemon.when("Status", started("2026-01-01T10:00:00.000Z"))
    daemon.when("Status", Act.CLOSE)
    daemon.when("Status", started("2026-01-01T10:00:00.000Z"))
    daemon.when("Status", started("2026-01-01T10:05:00.000Z", adopted=3, pid=7))
    daemon.when("Shutdown", encode_reply(ShutdownReply(pid=1)), Act.CLOSE)
    done = await ctl("--json", "restart", "--keep-agents")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "pid": 7,
        "started_at": "2026-01-01T10:05:00.000Z",
        "adopted_runs": 3,
    }
    assert daemon.parameters(1) == {"reason": "restarted by a person", "keep_agents": True}
    assert b"(pid 1) is leaving its agents to the next daemon" in done.stderr


async def test_a_restart_that_nobody_follows_says_so_after_a_while(
    daemon, ctl, monkeypatch, capsys
):
    monkeypatch.setattr(restart_module, "NEXT_S", 0.3)
    daemon.when("Status", started("2026-01-01T10:00:00.000Z"))
    daemon.when("Shutdown", encode_reply(ShutdownReply(pid=1)), Act.CLOSE)
    began = time.monotonic()
    command = ["--socket", str(ctl.socket), "restart", "--keep-agents"]
    assert await trio.to_thread.run_sync(ctl_main.main, command) == 1
    assert time.monotonic() - began >= 0.3
    out, err = capsys.readouterr()
    assert out == ""
    assert "no other has answered" in err
    assert "its agents go on; start factoryd" in err


async def test_a_daemon_that_refuses_to_be_restarted_goes_on(daemon, ctl):
    daemon.when("Status", started("2026-01-01T10:00:00.000Z"))
    daemon.when("Shutdown", encode_error(f"{INTERFACE}.Refused", Reason(reason="too late")))
    done = await ctl("restart", "--keep-agents")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"factoryctl: too late\n"


async def test_restart_without_keep_agents_asks_nobody(daemon, ctl):
    done = await ctl("restart")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"restart --keep-agents" in done.stderr
    assert daemon.calls == []


# --------------------------------------------------------------------------------------- doctor


def test_the_daemon_is_judged_by_what_it_says():
    well = status().daemon
    assert daemon_check(well).state is Verdict.OK
    assert "pid 1" in daemon_check(well).detail
    stopping = msgspec.structs.replace(well, state="stopping")
    assert daemon_check(stopping).state is Verdict.WARNING
    ill = daemon_check(status(degraded=("reaper",)).daemon)
    assert (ill.state, "degraded: reaper" in ill.detail) == (Verdict.FAILED, True)
    assert in_force(well) == "cgroup:"
    held = msgspec.structs.replace(well, controllers=("memory", "pids"))
    assert in_force(held) == "cgroup:memory,pids"


@pytest.mark.parametrize(
    ("failure", "state", "expected"),
    [
        (NotRunning("nobody"), None, "warning"),
        (NotRunning("nobody"), "not-running", "warning"),
        (NotRunning("nobody"), "starting", "warning"),
        (NotRunning("nobody"), "hung", "failed"),
        (Garbled("what?"), None, "failed"),
    ],
)
def test_a_daemon_that_says_nothing_is_judged_by_its_heartbeat(failure, state, expected):
    judgements = [Judgement(state=state, reason="by its heartbeat")] if state else []
    check = unheard_check(failure, judgements)
    assert check.state == expected
    heard = state not in {None, "not-running"}
    assert check.detail == ("by its heartbeat" if heard else str(failure))


def test_a_checkup_is_a_table_with_what_to_do_below_each_line():
    checkup = Checkup(
        checks=(
            Check(name="sqlite", state=Verdict.OK, detail="3.40.1"),
            Check(name="agent impl", state=Verdict.FAILED, detail="no\x1b", advice="install it"),
        )
    )
    assert plain_checkup(checkup).splitlines() == [
        "ok       sqlite      3.40.1",
        "failed   agent impl  no\\x1b",
        "                     -> install it",
    ]


async def test_doctor_passes_on_what_the_daemon_uses(daemon, ctl):
    daemon.when("Status", started("2026-01-01T10:00:00.000Z", containment="subreaper"))
    done = await ctl("--json", "doctor")
    assert done.stderr == b""
    checks = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert checks["daemon"]["state"] == "ok"
    assert checks["containment"]["state"] == "warning"
    assert "subreaper is in force in the daemon that runs" in checks["containment"]["detail"]
    assert done.returncode == 1, "there is no configuration here"


async def test_doctor_without_a_daemon_reports_on_the_rest(ctl):
    heartbeat = ctl.socket.parent / "heartbeat"
    heartbeat.write_bytes(msgspec.json.encode(beat(status="stopping")))
    done = await ctl("doctor")
    assert done.returncode == 1
    assert b"is stopping and does not answer" in done.stdout
    assert b"sqlite" in done.stdout


@pytest.mark.parametrize(
    ("program", "said"),
    [("raise SystemExit('a broken installation')", "1: a broken installation"), ("1", "it ended")],
)
async def test_a_factoryd_that_cannot_answer_is_one_more_failure(
    ctl, monkeypatch, capsys, tmp_path, program, said
):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    command = ["--socket", str(ctl.socket), "--json", "doctor"]
    assert await trio.to_thread.run_sync(ctl_main.main, command) == 1
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [one["name"] for one in checks] == ["daemon", "factoryd doctor"]
    assert said in checks[1]["detail"]
