"""What is told of finished issues and of facts, by a daemon and without one: the same."""

import json
import os
import sys
from signal import SIGKILL

import pytest
import trio

from factoryd.adapters.sqlite_store import LEDGER
from tests.system.daemons import a_place, ask_as, eventually, is_started, play

pytestmark = [pytest.mark.system, pytest.mark.slow]

NOBODY = 65534

AS_NOBODY = """
import os, sys
from factoryd.__main__ import main
os.setgroups([])
os.setresgid(*[int(sys.argv[1])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
sys.exit(main(sys.argv[2:]))
"""
"""Runs factoryd as another user, who need not be able to read its code."""


async def ctl(place, *arguments):
    """Run factoryctl for the daemons of a place."""
    where = ["--socket", str(place.socket), "--state-dir", str(place.state)]
    return await place.run(command=[sys.executable, "-m", "factoryctl", *where, *arguments])


async def daemonless(place, *arguments):
    """Run a verb of factoryd that needs no daemon."""
    verb, *rest = arguments
    where = ["--state-dir", str(place.state)]
    return await place.run(command=[sys.executable, "-m", "factoryd", verb, *where, *rest])


def lines(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ledger_of(place):
    """Return the ledger and what lies beside it, to the byte."""
    return {path.name: path.read_bytes() for path in place.state.glob(f"{LEDGER}*")}


ASKED = (
    ["history"],
    ["history", "--json"],
    ["history", "A-1"],
    ["history", "a-2", "--json"],
    ["history", "a-3-w"],
    ["history", "-n", "2", "--json"],
    ["events", "--json", "--since", "3"],
    ["events", "--issue", "A-1"],
)


async def ask_all(place):
    """Return what factoryctl answers to all that may be asked."""
    answers = [await ctl(place, *one) for one in ASKED]
    assert [one.returncode for one in answers] == [0] * len(ASKED), [o.stderr for o in answers]
    return [one.stdout for one in answers], [one.stderr for one in answers]


async def live_through(place, daemon):
    """Have one issue done after it was parked, one killed and one parked."""
    place.put("A-1", "echo up; [ -e ../mended ]")
    await daemon.wait_issue("A-1", "parked")
    await daemon.wait_fact("A-1", "issue-left-ready")  # else it has never been away
    (place.root / "mended").touch()
    assert (await ctl(place, "retry", "A-1", "--reason", "mended")).returncode == 0
    await daemon.wait_issue("A-1", "done")
    place.put("A-2", play("spin:0.3"))
    await daemon.wait_running("A-2")
    assert (await ctl(place, "kill", "A-2", "--now", "--reason", "enough")).returncode == 0
    place.put("A-3", "exit 7")
    await daemon.wait_issue("A-3", "parked")

    async def is_quiet():
        kinds = await daemon.kinds_of(None)
        return kinds.count("outcome-written") == kinds.count("issue-left-ready") == 4

    await eventually(is_quiet)


@pytest.mark.timeout(120)
async def test_history_is_the_same_with_a_daemon_and_after_it_was_stopped_or_killed():
    with a_place() as place:
        async with place.daemon() as first:
            await live_through(place, first)
            listed = lines(await ctl(place, "history", "--json"))
            assert [(one["key"], one["outcome"]) for one in listed] == [
                ("A-3", "parked"),
                ("A-2", "cancelled"),
                ("A-1", "done"),
                ("A-1", "parked"),
            ]
            live, told = await ask_all(place)
            assert told == [""] * len(ASKED)
            beside = [(await daemonless(place, *one)).stdout for one in ASKED]
            assert beside == live, "the ledger is read while its daemon runs"
            before = len(lines(await ctl(place, "events", "--json")))
        assert set(ledger_of(place)) == {LEDGER}
        kept = ledger_of(place)
        stopped, told = await ask_all(place)
        assert all("reading its ledger instead" in one for one in told)
        assert stopped[:6] == live[:6]
        assert stopped[7] == live[7]
        assert stopped[6].startswith(live[6]), "a stop is a fact more"
        assert ledger_of(place) == kept
        async with place.daemon() as second:
            events = lines(await ctl(place, "events", "--json"))
            assert len(events) > before
            second.signal(SIGKILL)
            await second.wait()
        kept = ledger_of(place)
        assert len(kept) == 3, "as a killed daemon leaves it"
        killed, _ = await ask_all(place)
        assert killed[:6] == live[:6]
        assert lines(await ctl(place, "events", "--json")) == events
        assert ledger_of(place) == kept
        async with place.daemon() as third:
            assert lines(await ctl(place, "history", "--json")) == listed
            assert (await third.status())["counters"]["done"] == 1


async def test_an_issue_has_its_attempts_runs_receipts_and_how_it_ended():
    with a_place(dispatch="max_attempts = 2", resume='max_resumes = 1\ndelay = "1ms"') as place:
        async with place.daemon() as daemon:
            spin = "exec $PYTHON $AGENT await:../go spin:0.6"
            place.put("A-1", f"echo up; [ -e ../mended ] && {spin}; exit 3")
            await daemon.wait_issue("A-1", "parked")
            (place.root / "mended").touch()
            await ctl(place, "retry", "A-1", "--reason", "mended")
            await daemon.wait_issue("A-1", "running", when=is_started)
            (place.root / "go").touch()  # what it spins now is within its wall time
            await daemon.wait_issue("A-1", "done")
            done, parked = lines(await ctl(place, "history", "A-1", "--json"))
            assert (parked["attempts_used"], parked["rounds"], parked["outcome"]) == (
                2,
                1,
                "parked",
            )
            assert [len(one["runs"]) for one in parked["attempts"]] == [2, 2]
            assert [run["resumes"] for run in parked["attempts"][1]["runs"]] == [0, 1]
            assert {run["exit"] for one in parked["attempts"] for run in one["runs"]} == {3}
            assert parked["ending"][0]["kind"] == "issue-parked"
            (run,) = done["attempts"][0]["runs"]
            assert (run["result"], run["exit"], run["survivors"], run["emptied"]) == (
                *("succeeded", 0),
                *(0, True),
            )
            assert 0.2 < run["cpu_s"] <= done["cpu_s"]
            assert run["cpu_s"] / 2 < run["wall_s"] < done["wall_s"] + 1
            assert run["peak_processes"] is None or run["peak_processes"] >= 1
            assert done["ending"][0]["kind"] == "issue-done"
            unknown = await ctl(place, "history", "Z-9")
            assert (unknown.returncode, unknown.stdout) == (4, "")
            assert "Z-9: no such issue in the ledger" in unknown.stderr
        offline = await ctl(place, "history", "Z-9")
        assert (offline.returncode, offline.stdout) == (4, "")
        assert "Z-9: no such issue in the ledger" in offline.stderr


async def test_facts_cannot_be_followed_without_a_daemon():
    with a_place() as place:
        async with place.daemon():
            pass
        followed = await ctl(place, "events", "-f")
        assert (followed.returncode, followed.stdout) == (3, "")
        assert "no factoryd is running" in followed.stderr


@pytest.mark.parametrize("damage", ["torn", "overwritten", "empty", "gone", "torn and killed"])
async def test_a_ledger_that_cannot_be_read_is_told_in_one_sentence_and_left_as_it_is(damage):
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", "echo up")
            await daemon.wait_issue("A-1", "done")
        if damage == "torn and killed":
            async with place.daemon() as daemon:
                daemon.signal(SIGKILL)
                await daemon.wait()
        ledger = place.state / LEDGER
        whole = ledger.read_bytes()
        match damage:
            case "torn" | "torn and killed":
                ledger.write_bytes(whole[: len(whole) // 2 + 100])
                if "killed" in damage:
                    ledger.with_name(f"{LEDGER}-wal").write_bytes(b"")
            case "overwritten":
                ledger.write_bytes(b"\xa5" * len(whole))
            case "empty":
                ledger.write_bytes(b"")
            case _:
                ledger.unlink()
        kept = ledger_of(place)
        for verb in ("history", "events"):
            done = await ctl(place, verb)
            said = done.stderr.splitlines()
            if damage == "empty":
                assert (done.returncode, done.stdout) == (0, "")
                assert len(said) == 2
            else:
                assert (done.returncode, done.stdout) == (1, ""), done.stderr
                assert len(said) == 3
                assert said[-1].startswith(f"{ledger}: ")
                assert ("there is no ledger" if damage == "gone" else "it is damaged") in said[-1]
            assert ledger_of(place) == kept


@pytest.mark.parametrize("end", ["stopped", "killed"])
async def test_one_who_may_only_read_the_state_directory_reads_it(end):
    """Whether or not the ledger was closed: nothing needs to be written there."""
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", "echo up")
            await daemon.wait_issue("A-1", "done")
            if end == "killed":
                daemon.signal(SIGKILL)
                await daemon.wait()
        place.state.chmod(0o750)
        os.chown(place.state, 0, NOBODY)
        for path in place.state.glob(f"{LEDGER}*"):
            path.chmod(0o640)
            os.chown(path, 0, NOBODY)
        read = [sys.executable, "-c", AS_NOBODY, str(NOBODY)]
        unmeasured = {"COVERAGE_PROCESS_CONFIG": ""}  # nobody could not write down what it reached
        where = ["--state-dir", str(place.state), "--json"]
        for verb, first in (("history", "A-1"), ("events", "")):
            done = await place.run(command=[*read, verb, *where], **unmeasured)
            assert lines(done)[0].get("key", "") == first
        for path in (place.state / LEDGER, place.state):
            path.chmod(0o600)
            for verb in ("history", "events"):
                done = await place.run(command=[*read, verb, *where], **unmeasured)
                assert (done.returncode, done.stdout) == (6, "")
                (said,) = done.stderr.splitlines()
                assert said.endswith(
                    "you may not read it: ask as root or as the user factoryd runs as"
                )


async def test_a_reader_is_told_the_history_by_the_daemon():
    with a_place(access='readers = ["@daemon"]') as place:
        async with place.daemon() as daemon:
            place.put("A-1", "echo up")
            await daemon.wait_issue("A-1", "done")
            reply = await ask_as("daemon", place.socket, "History", target="A-1")
            assert [one["key"] for one in reply["parameters"]["issues"]] == ["A-1"]
            denied = await ask_as("nobody", place.socket, "History")
            assert denied["error"].endswith("PermissionDenied")


async def test_whoever_stops_reading_ends_the_answer_in_silence():
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", "echo up")
            await daemon.wait_issue("A-1", "done")
        for verb in ("history", "events"):
            command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket)]
            ours, theirs = os.pipe()
            os.close(ours)
            with trio.fail_after(20):
                done = await trio.run_process(
                    [*command, "--state-dir", str(place.state), verb],
                    env=place.environment(),
                    stdout=theirs,
                    capture_stderr=True,
                    check=False,
                )
            os.close(theirs)
            assert done.returncode == 141
            assert b"Traceback" not in done.stderr
            full = await trio.run_process(
                [
                    "/bin/sh",
                    "-c",
                    '"$@" >/dev/full',
                    "sh",
                    *command,
                    "--state-dir",
                    place.state,
                    verb,
                ],
                env=place.environment(),
                capture_stderr=True,
                check=False,
            )
            assert full.returncode == 1
            assert full.stderr.endswith(b"the answer cannot be written: No space left on device\n")
