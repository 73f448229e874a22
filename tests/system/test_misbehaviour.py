"""Agents that do what they should not: nothing of them is left, however their run ends."""

import psutil
import pytest

from tests.system.daemons import a_daemon, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(90)]

LEFT_BEHIND = {
    "children": "child:3",
    "generations": "deep:9",
    "session": "setsid",
    "daemon": "double-fork",
    "escaped": "escape",
    "no-environment": "bare-child",
    "storm": "storm:2",
    "deaf-children": "ignore:TERM child:2 setsid double-fork",
    "everybody": "child:1 setsid double-fork bare-child escape",
}
"""What an agent leaves when it ends, by the name of its issue."""

KEPT_UP = {
    "deaf": "ignore:TERM ignore:INT ignore:HUP say:up sleep",
    "stopped": "child:1 say:up stop",
    "renamed": "name:systemd child:1 say:up sleep",
    "another": "setsid say:up exec:sleep",
    "mute": "say:up close setsid sleep",
    "last-words": "last-words:no child:1 say:up sleep",
    "stubborn": "on-term:0 say:up sleep",
    "all": "name:init ignore:TERM child:2 deep:3 setsid double-fork escape bare-child storm:1 "
    "say:up close stop",
} | {key: f"{steps} say:up sleep" for key, steps in LEFT_BEHIND.items()}
"""What an agent does that goes on until it is killed."""

containments = pytest.mark.parametrize("containment", ["cgroup", "subreaper"])


async def nothing_is_left(daemon):
    """Return once nothing is owed to the reaper, and see that then nothing runs any more.

    A subreaper proves by looking at every process of the machine; where that takes longer than a
    stop may, the rest is handed off, and proven a moment later.
    """

    async def is_settled():
        return not (await daemon.status())["handoffs"]

    await eventually(is_settled)
    assert daemon.place.survivors() == []
    below = psutil.Process(daemon.pid).children(recursive=True)  # where a subreaper's orphans go
    assert [child.cmdline() for child in below] == []


@containments
async def test_a_kill_leaves_nothing_of_any_agent_whatever_it_does(containment):
    async with a_daemon(factory=f'containment = "{containment}"\nslots = 30') as daemon:
        for key, steps in KEPT_UP.items():
            daemon.place.put(key, f"exec $PYTHON $AGENT {steps}")
        for key in KEPT_UP:
            await daemon.wait_running(key)
        assert len(daemon.place.survivors()) > 2 * len(KEPT_UP)
        killed = (await daemon.call("Kill", all=True))["agents"]
        assert {one["agent"] for one in killed} == {f"{key}-w" for key in KEPT_UP}
        emptied = {one["agent"] for one in killed if one["emptied"] and one["survivors"] == 0}
        assert len(emptied) == len(killed) or containment == "subreaper"
        await nothing_is_left(daemon)


@containments
async def test_an_agent_that_ends_leaves_nothing_behind_whatever_it_started(containment):
    async with a_daemon(factory=f'containment = "{containment}"') as daemon:
        for key, steps in LEFT_BEHIND.items():
            daemon.place.put(key, f"exec $PYTHON $AGENT {steps} say:up")
        for key in LEFT_BEHIND:
            issue = await daemon.wait_issue(key, "done", "parked")
            assert (issue["state"], issue["agents"][0]["exit"]) == ("done", 0), key
        await nothing_is_left(daemon)


async def test_what_an_agent_writes_while_it_dies_is_not_lost():
    async with a_daemon(stop='grace = "10s"') as daemon:
        daemon.place.put("A-1", "exec $PYTHON $AGENT last-words:farewell say:up sleep")
        await daemon.wait_running("A-1")
        await daemon.call("Kill", targets=["A-1"])
        logs = await daemon.call("Logs", target="A-1")
        assert [line["text"] for line in logs["lines"]][:3] == ["up", "farewell", "farewell"]
