"""Issues frozen and thawed with real agents, through factoryctl, over deaths of the daemon."""

import json
import sys
from contextlib import asynccontextmanager
from signal import SIGKILL

import pytest
import trio

from tests.system.daemons import CallFailed, a_daemon, a_place, eventually, play

pytestmark = [pytest.mark.system, pytest.mark.slow]

COUNT = """
echo up
n=0
while :; do n=$((n + 1)); echo $n >counter.new; mv counter.new counter; sleep 0.02; done
"""
"""Counts into a file of its working directory for ever; its output says nothing after `up`."""

STILL_S = 0.6
"""Looked at for so long, a counter that goes on has moved on any machine."""


@asynccontextmanager
async def counting(**sections):
    """A daemon with an issue whose agent counts, and the file it counts into."""
    async with a_daemon(**sections) as daemon:
        daemon.place.put("A-1", COUNT)
        await daemon.wait_running("A-1")
        yield daemon, Counter(daemon.place)


class Counter:
    """What an agent has counted up to."""

    def __init__(self, place):
        self._place = place
        self._path = place.root / "work" / "counter"

    def read(self):
        return int(self._path.read_text()) if self._path.exists() else 0

    async def wait_moving(self):
        seen = self.read()
        await self._place.wait_for(lambda: self.read() > seen)

    async def stands_still(self):
        seen = self.read()
        await trio.sleep(STILL_S)
        return self.read() == seen


async def ctl(place, *arguments):
    """Run factoryctl for the daemons of a place."""
    command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket), *arguments]
    return await place.run(command=command)


async def test_a_frozen_agent_stands_still_and_goes_on_after_the_thaw():
    async with counting() as (daemon, counter):
        await counter.wait_moving()
        frozen = await ctl(daemon.place, "freeze", "a-1", "--reason", "lunch\ttime")
        assert (frozen.returncode, frozen.stdout) == (0, "A-1  frozen, 1 of 1 runs\n")
        assert await counter.stands_still()
        issue = await daemon.issue("A-1")
        assert issue is not None
        assert (issue["state"], issue["frozen"], issue["reason"]) == (
            "running",
            True,
            "lunch time",
        )
        shown = await ctl(daemon.place, "status")
        assert "running/frozen" in shown.stdout
        assert "lunch time" in shown.stdout
        thawed = await ctl(daemon.place, "--json", "thaw", "a-1-w")
        assert json.loads(thawed.stdout) == {"issue": "A-1", "runs": 1, "late": 0}
        await counter.wait_moving()
        issue = await daemon.issue("A-1")
        assert issue is not None
        assert (issue["frozen"], issue["reason"]) == (False, None)


async def test_what_cannot_be_frozen_is_refused_in_words_with_the_right_status():
    async with counting() as (daemon, _):
        nobody = await ctl(daemon.place, "freeze", "B-9")
        assert (nobody.returncode, nobody.stderr) == (4, "factoryctl: B-9: no such issue\n")
        running = await ctl(daemon.place, "thaw", "A-1")
        assert (running.returncode, running.stderr) == (1, "factoryctl: A-1: it is not frozen\n")
        await ctl(daemon.place, "freeze", "A-1")
        twice = await ctl(daemon.place, "freeze", "A-1")
        assert twice.returncode == 1
        assert twice.stderr == "factoryctl: A-1: it is frozen already: frozen by a person\n"
        with pytest.raises(CallFailed) as failed:
            await daemon.call("Freeze", target="A-1")
        assert failed.value.name == "Refused"


@pytest.mark.timeout(60)
async def test_an_agent_that_is_frozen_for_longer_than_it_may_be_silent_has_not_stalled():
    """Silent but busy it never stalls; frozen it is silent and idle, and its clock stands still."""
    async with counting(agents='stall_after = "4s"') as (daemon, counter):
        await counter.wait_moving()
        await daemon.call("Freeze", target="A-1")
        await trio.sleep(6)
        assert await counter.stands_still()
        await daemon.call("Thaw", target="A-1")
        await counter.wait_moving()
        issue = await daemon.issue("A-1")
        assert issue is not None
        assert (issue["state"], issue["attempt"], len(issue["agents"])) == ("running", 1, 1)
        assert issue["agents"][0]["resumes"] == 0


async def test_an_issue_stays_frozen_when_its_daemon_is_killed_and_is_thawed_by_the_next():
    with a_place() as place:
        async with place.daemon() as first:
            place.put("A-1", COUNT)
            agent = await first.wait_running("A-1")
            counter = Counter(place)
            await counter.wait_moving()
            await first.call("Freeze", target="A-1", reason="lunch")
            first.signal(SIGKILL)
            await first.wait()
        assert await counter.stands_still()
        async with place.daemon() as second:
            issue = await second.wait_issue("A-1", when=lambda one: one["frozen"])
            assert issue["reason"] == "lunch"
            assert issue["agents"][0]["pid"] == agent["pid"]
            assert await counter.stands_still()
            await eventually(lambda: _thaws(second))
            await counter.wait_moving()


async def _thaws(daemon):
    return (await daemon.call("Thaw", target="A-1"))["runs"] == 1


@pytest.mark.parametrize("steps", ["child:3", "ignore:TERM child:3"])
async def test_a_frozen_issue_that_is_killed_leaves_nothing(steps):
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play("setsid", "double-fork", *steps.split()))
        await daemon.wait_running("A-1")
        assert await daemon.call("Freeze", target="A-1") == {"issue": "A-1", "runs": 1, "late": 0}
        killed = await ctl(daemon.place, "--json", "kill", "A-1")
        assert killed.returncode == 0, killed.stderr
        (report,) = [json.loads(line) for line in killed.stdout.splitlines()]
        assert (report["survivors"], report["emptied"]) == (0, True)
        assert daemon.place.survivors() == []
        issue = await daemon.wait_issue("A-1", "cancelled")
        assert not issue["frozen"]


async def test_a_daemon_that_stops_while_an_issue_is_frozen_leaves_nothing():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play("child:3", "setsid"))
        await daemon.wait_running("A-1")
        await daemon.call("Freeze", target="A-1")
        assert await daemon.stop() == 0


async def test_the_next_agent_of_a_frozen_issue_starts_after_the_thaw():
    agents = '[agents.second]\nkind = "command"\nname = "v"\ncommand = ["/bin/sh", "-c", "echo up"]'
    with a_place(agents=agents) as place:
        text = place.config.read_text()
        place.config.write_text(text.replace('[["worker"]]', '[["worker"], ["second"]]'))
        async with place.daemon() as daemon:
            place.put("A-1", "echo up; while [ ! -e ../go ]; do sleep 0.02; done")
            agent = await daemon.wait_running("A-1")
            await daemon.call("Freeze", target="A-1")
            (place.root / "go").touch()
            await trio.sleep(STILL_S)
            issue = await daemon.issue("A-1")
            assert issue is not None
            assert [one["pid"] for one in issue["agents"]] == [agent["pid"]]
            await daemon.call("Thaw", target="A-1")
            issue = await daemon.wait_issue("A-1", "done")
            assert [one["name"] for one in issue["agents"]] == ["a-1-w", "a-1-v"]
