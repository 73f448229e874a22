"""The verbs that steer, through factoryctl, with real daemons and agents."""

import json
import sys
from signal import SIGKILL

import pytest

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
