"""The verbs that steer, through factoryctl, with real daemons and agents."""

import json
import sys
from contextlib import suppress
from signal import SIGKILL

import pytest
import trio

from factoryd.core.explain import CHECKS
from tests.system.daemons import a_place, play

pytestmark = [pytest.mark.system, pytest.mark.slow]


async def ctl(place, *arguments):
    """Run factoryctl for the daemons of a place."""
    command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket), *arguments]
    return await place.run(command=command)


async def test_a_pause_outlives_a_killed_daemon_and_ends_when_told():
    with a_place() as place:
        async with place.daemon() as first:
            place.put("A-1", play())
            agent = await first.wait_running("A-1")
            paused = await ctl(place, "pause", "--reason", "lunch")
            assert (paused.returncode, paused.stdout) == (0, "dispatching is paused: lunch\n")
            first.signal(SIGKILL)
            await first.wait()
        async with place.daemon() as second:
            place.put("A-2", "echo up")
            waiting = await second.wait_issue("A-2", "ready", when=lambda one: one["reason"])
            assert waiting["reason"] == "paused"
            status = await second.status()
            assert status["daemon"]["paused"] is True
            assert "paused (lunch)" in (await ctl(place, "status")).stdout
            running = await second.wait_issue("A-1", "running")
            assert running["agents"][0]["pid"] == agent["pid"], "what runs goes on"
            resumed = await ctl(place, "--json", "resume")
            assert json.loads(resumed.stdout) == {"paused": False, "reason": None, "changed": True}
            await second.wait_issue("A-2", "done")


async def test_explain_gives_every_check_in_order_for_any_issue():
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", play())
            await daemon.wait_running("A-1")
            place.put("A-2", "echo up", repo="nowhere")
            await daemon.wait_issue("A-2", "escalated")
            verdicts = {}
            for key in ("a-1-w", "A-2", "Z-9"):
                told = await ctl(place, "--json", "explain", key)
                assert told.returncode == 0, told.stderr
                reply = json.loads(told.stdout)
                assert [one["check"] for one in reply["checks"]] == list(CHECKS)
                verdicts[reply["issue"]] = reply["verdict"].split(":")[0]
            assert verdicts == {
                "A-1": "dispatch already in-flight",
                "A-2": "no route",
                "Z-9": "unknown issue",
            }
            table = (await ctl(place, "explain", "A-2")).stdout.splitlines()
            assert table[0].startswith("A-2 (escalated): no route: it names the repo 'nowhere'")
            assert len(table) == 3 + len(CHECKS)


async def test_retry_brings_back_what_was_parked_killed_or_done():
    fail = "echo up; [ -e ../mended ]"
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", fail)
            await daemon.wait_issue("A-1", "parked")
            (place.root / "mended").touch()
            retried = await ctl(place, "retry", "a-1", "--reason", "mended")
            assert (retried.returncode, retried.stdout) == (
                0,
                "A-1  ready again, with all its attempts\n",
            )
            await daemon.wait_issue("A-1", "done")
            issues = place.root / "issues"
            await place.wait_for((issues / "done" / "A-1.md").exists)
            assert list((issues / "failed").iterdir()) == []
            again = await ctl(place, "--json", "retry", "A-1")
            assert json.loads(again.stdout) == {"issue": "A-1"}
            await daemon.wait_issue("A-1", "done", when=lambda one: one["reason"] is None)
            place.put("A-2", play())
            await daemon.wait_running("A-2")
            refused = await ctl(place, "retry", "A-2")
            assert refused.returncode == 1
            assert "A-2 is under way: it is running; kill it first" in refused.stderr
            assert (await ctl(place, "kill", "A-2", "--now")).returncode == 0
            assert (await ctl(place, "retry", "A-2")).returncode == 0
            await daemon.wait_running("A-2")
            assert (await ctl(place, "retry", "Z-9")).returncode == 4


async def test_release_leaves_nothing_running_and_writes_back_done():
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", play("setsid", "double-fork", "child:3"))
            await daemon.wait_running("A-1")
            released = await ctl(place, "--json", "release", "a-1-w", "--reason", "by hand")
            assert released.returncode == 0, released.stderr
            (report,) = map(json.loads, released.stdout.splitlines())
            assert (report["agent"], report["survivors"], report["emptied"]) == ("a-1-w", 0, True)
            assert place.survivors() == []
            issue = await daemon.wait_issue("A-1", "done")
            assert issue["reason"] == "by hand"
            done = place.root / "issues" / "done"
            await daemon.wait_fact("A-1", "outcome-written")
            assert (done / "A-1.md").exists()
            outcome = json.loads((done / "A-1.md.outcome.json").read_text())
            assert (outcome["state"], outcome["reason"]) == ("done", "by hand")
            again = await ctl(place, "release", "A-1")
            assert (again.returncode, "has ended already" in again.stderr) == (1, True)


async def test_what_waits_and_is_killed_or_released_leaves_ready_and_is_never_worked_on():
    with a_place(factory="slots = 1") as place:
        async with place.daemon() as daemon:
            place.put("A-1", play())
            await daemon.wait_running("A-1")
            for key, verb, state in (
                ("A-2", ("release",), "done"),
                ("A-3", ("kill", "--yes"), "cancelled"),
            ):
                place.put(key, "touch ../ran")
                await daemon.wait_issue(key, "ready")
                told = await ctl(place, verb[0], key, *verb[1:])
                assert told.returncode == 0, told.stderr
                await daemon.wait_issue(key, state)
                await place.wait_for((place.root / "issues" / state / f"{key}.md").exists)
            assert list(place.ready.iterdir()) == []
            assert (await ctl(place, "kill", "A-1", "--now")).returncode == 0
            assert not (place.root / "ran").exists()


@pytest.mark.parametrize(
    ("directory", "state"), [("done", "done"), ("failed", "parked"), ("cancelled", "cancelled")]
)
async def test_an_issue_whose_file_a_person_puts_away_is_ended_as_that_while_its_agent_runs(
    directory, state
):
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", play("ignore:TERM", "setsid", "child:3"))
            await daemon.wait_running("A-1")
            issues = place.root / "issues"
            (issues / "active" / "A-1.md").rename(issues / directory / "A-1.md")
            outcome = issues / directory / "A-1.md.outcome.json"
            await place.wait_for(outcome.exists)
            assert json.loads(outcome.read_text())["state"] == state
            assert place.survivors() == []
            await daemon.wait_issue("A-1", state)
            retried = await ctl(place, "retry", "A-1")
            assert retried.returncode == 0, retried.stderr
            await daemon.wait_running("A-1")
            assert not outcome.exists()


async def test_an_issue_whose_file_is_removed_is_cancelled_and_one_that_is_saved_anew_goes_on():
    with a_place() as place:
        async with place.daemon() as daemon:
            place.put("A-1", play())
            place.put("A-2", play())
            for key in ("A-1", "A-2"):
                await daemon.wait_running(key)
            active = place.root / "issues" / "active"
            text = (active / "A-1.md").read_text()
            for _ in range(5):
                (active / ".A-1.new").write_text(text.replace("title: ", "title: better "))
                (active / "A-1.md").rename(active / "A-1.md~")
                (active / ".A-1.new").rename(active / "A-1.md")
                (active / "A-1.md~").unlink()
            (active / "A-2.md").unlink()
            gone = await daemon.wait_issue("A-2", "cancelled")
            assert gone["reason"] == "it is gone from its source"
            assert (await daemon.wait_issue("A-1"))["state"] == "running"


async def test_an_exit_a_kill_a_release_and_a_file_put_away_at_once_end_an_issue_once():
    with a_place() as place:
        async with place.daemon() as daemon:
            keys = [f"A-{n}" for n in range(1, 6)]
            for key in keys:
                place.put(
                    key, f"echo up; sleep 60 & until [ -e ../end-{key} ]; do sleep 0.02; done"
                )
                await daemon.wait_running(key)
            issues = place.root / "issues"
            for key in keys:
                (place.root / f"end-{key}").touch()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ctl, place, "release", key)
                    nursery.start_soon(ctl, place, "kill", key, "--now")
                    with suppress(FileNotFoundError):  # it has ended meanwhile
                        (issues / "active" / f"{key}.md").rename(issues / "done" / f"{key}.md")
            for key in keys:
                await daemon.wait_issue(key, "done", "cancelled")
            for key in keys:
                await daemon.wait_fact(key, "outcome-written")
            assert place.survivors() == []
            facts = (await daemon.call("Events"))["facts"]
            told = [f["issue"] for f in facts if f["kind"] == "outcome-written"]
            assert sorted(told) == keys
            ends = [f["issue"] for f in facts if f["kind"] in {"issue-done", "issue-cancelled"}]
            assert sorted(ends) == keys
