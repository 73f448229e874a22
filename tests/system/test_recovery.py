"""What a real daemon does at its start where the ledger and the cgroups do not agree."""

from contextlib import asynccontextmanager
from signal import SIGKILL

import pytest
import trio

from factoryd.adapters.proc import read_stat
from tests.system.daemons import a_place, play

pytestmark = pytest.mark.system

WAIT = "echo up; until [ -e ../go ]; do sleep 0.02; done"
FAIL_ONCE = {"dispatch": "max_attempts = 1", "resume": "max_resumes = 0"}


@asynccontextmanager
async def a_sleeper():
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def lose_daemon(place, *keys):
    """Let a daemon run these issues' agents and die; return the agents' leaves."""
    async with place.daemon() as first:
        runs = {key: (await first.wait_running(key))["run"] for key in keys}
        first.signal(SIGKILL)
        await first.wait()
    return {key: place.cgroup / "agents" / key / run for key, run in runs.items()}


def is_alive(pid):
    stat = read_stat(pid)
    return stat is not None and not stat.ended


async def end(place, leaf):
    """Let an agent end while nobody looks, and take its leaf away."""
    await trio.Path(place.root, "go").touch()
    status = place.state / "runs" / leaf.parent.name / leaf.name / "status"
    await place.wait_for(status.exists)
    await place.wait_for(lambda: "populated 0" in (leaf / "cgroup.events").read_text())
    await trio.Path(leaf).rmdir()


async def test_a_leaf_without_record_is_emptied_at_the_start():
    with a_place() as place:
        async with place.daemon():
            pass
        leaf = trio.Path(place.cgroup, "agents", "A-9", "nobodys")
        await leaf.mkdir(parents=True)
        async with a_sleeper() as sleeper:
            await (leaf / "cgroup.procs").write_text(str(sleeper.pid))
            async with place.daemon():
                assert not await leaf.exists()
                assert not is_alive(sleeper.pid)
        assert "a tree that no run owns emptied: nobodys, 1 processes" in place.log


async def test_a_record_without_leaf_is_closed_with_what_the_status_file_says():
    with a_place(**FAIL_ONCE) as place:
        place.put("A-1", f"{WAIT}; exit 3")
        leaves = await lose_daemon(place, "A-1")
        await end(place, leaves["A-1"])
        async with place.daemon() as second:
            parked = await second.wait_issue("A-1", "parked")
            assert [agent["exit"] for agent in parked["agents"]] == [3]
            facts = (await second.call("Events"))["facts"]
            (emptied,) = [fact["body"] for fact in facts if fact["kind"] == "run-emptied"]
            assert emptied["report"]["emptied"]
            assert emptied["report"]["signalled"] == emptied["report"]["skipped"] == []


async def test_a_pid_without_leaf_is_verified_and_ended_with_all_below_it():
    with a_place() as place:
        place.put("A-1", play("child:2", "setsid"))
        leaves = await lose_daemon(place, "A-1")
        leaf, elsewhere = leaves["A-1"], trio.Path(place.cgroup, "elsewhere")
        await elsewhere.mkdir()
        pids = (leaf / "cgroup.procs").read_text().split()
        assert len(pids) >= 3
        for pid in pids:
            await (elsewhere / "cgroup.procs").write_text(pid)
        await place.wait_for(lambda: "populated 0" in (leaf / "cgroup.events").read_text())
        await trio.Path(leaf).rmdir()
        async with place.daemon() as second:
            shim = (await second.wait_running("A-1"))["pid"]
            (killed,) = (await second.call("Kill", targets=["A-1"]))["agents"]
            assert killed["emptied"]
            assert killed["killed"] == len(pids)
            # The shim comes last, and may end by itself as soon as its agent has.
            below = {int(pid) for pid in pids} - {shim}
            assert below <= {one["pid"] for one in killed["signalled"]}
            assert not any(is_alive(int(pid)) for pid in pids)
            assert place.survivors() == []


async def test_a_leaf_that_is_anothers_by_now_is_left_alone_and_its_run_is_closed():
    with a_place() as place:
        place.put("A-1", WAIT)
        leaves = await lose_daemon(place, "A-1")
        await end(place, leaves["A-1"])
        leaf = trio.Path(leaves["A-1"])
        await leaf.mkdir()
        async with a_sleeper() as sleeper:
            await (leaf / "cgroup.procs").write_text(str(sleeper.pid))
            async with place.daemon() as second:
                await second.wait_issue("A-1", "done")
                assert is_alive(sleeper.pid)
                assert (await (leaf / "cgroup.procs").read_text()).split() == [str(sleeper.pid)]
                facts = (await second.call("Events"))["facts"]
                (emptied,) = [fact["body"] for fact in facts if fact["kind"] == "run-emptied"]
                skipped = [{"pid": 0, "reason": "leaf identity mismatch"}]
                assert emptied["report"]["skipped"] == skipped
                sleeper.kill()
                await sleeper.wait()
