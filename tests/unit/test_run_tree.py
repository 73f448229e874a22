"""What a tree says of processes that the kernel does not let die; no real one is needed for it."""

import errno
import threading
from collections.abc import Collection

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from factoryd.adapters import run_tree
from factoryd.adapters.group import Group
from factoryd.adapters.hands import Hands
from factoryd.adapters.proc import Stat
from factoryd.adapters.run_tree import RunTree
from factoryd.core.model import RunId, Skipped, StopPolicy, TreePlace, Usage, Victim
from tests.fakes.threads import run_inline

POLICY = StopPolicy()
FIRST = 2**22 + 1
"""Pids that no machine hands out."""


class Immortals:
    """A group whose processes stay as they are, whatever is done to them. See `group.Group`."""

    waits = True

    def __init__(self, *states: str) -> None:
        self.members = {
            pid: Stat(
                pid=pid, state=state, ppid=1, session=1, cpu_ticks=0, threads=1, start_ticks=1
            )
            for pid, state in enumerate(states, FIRST)
        }
        self.kills = 0
        self.thaws = 0
        self.awaited = trio.Event()
        self.busy: OSError | None = None

    def list_members(self) -> dict[int, Stat]:
        return dict(self.members)

    def among(self, pids: Collection[int]) -> set[int]:
        return self.members.keys() & pids

    async def freeze(self) -> None:
        await trio.lowlevel.checkpoint()

    def thaw(self) -> None:
        self.thaws += 1
        raise PermissionError(errno.EACCES, "Permission denied")

    def kill(self) -> bool:
        self.kills += 1
        return True

    async def wait_empty(self) -> None:
        self.awaited.set()
        await trio.lowlevel.checkpoint()
        if self.members:
            await trio.sleep_forever()

    def remove(self) -> Usage:
        if self.busy is not None:
            raise self.busy
        return Usage(processes=0)

    def find_victims(self) -> tuple[Victim, ...]:
        return ()

    def measure(self) -> Usage:
        return Usage(processes=len(self.members))


@pytest.fixture(autouse=True)
def no_threads(monkeypatch):
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


def tree_of(group: Group) -> RunTree:
    place = TreePlace(run=RunId("r1"), issue="AR-1", agent="ar-1-impl", directory="")
    return RunTree(place, group, None)


async def test_uninterruptible_sleep_is_a_survivor_with_that_reason_and_no_proof(autojump_clock):
    group = Immortals("D", "S")
    report = await tree_of(group).kill(POLICY)
    assert group.kills >= 1
    assert (report.emptied, report.survivors) == (False, 2)
    assert report.skipped == (
        Skipped(pid=FIRST, reason="uninterruptible sleep"),
        Skipped(pid=FIRST + 1, reason="alive after SIGKILL"),
    )
    assert {one.signals for one in report.signalled} == {("SIGKILL",)}


async def test_a_survivor_that_woke_up_and_died_is_proven_gone_by_the_next_try(autojump_clock):
    group = Immortals("D")
    tree = tree_of(group)
    assert not (await tree.kill(POLICY)).emptied
    group.members.clear()
    report = await tree.kill(POLICY)
    assert (report.emptied, report.survivors) == (True, 0)
    assert tree.usage().processes == 0


async def test_a_grace_over_the_immortal_is_ended_by_its_caller_alone(autojump_clock):
    tree = tree_of(Immortals("D"))
    with trio.move_on_after(0.05) as grace:
        await tree.terminate(POLICY)
    assert grace.cancelled_caught


async def test_a_grace_that_passes_while_every_thread_is_busy_begins_with_the_signal_all_the_same():
    hands, busy, go = Hands(1), threading.Event(), threading.Event()

    def hold():
        busy.set()
        assert go.wait(10)

    async def end(grace):
        await trio.testing.wait_all_tasks_blocked()
        grace.cancel(reason="the grace is over")
        go.set()

    group = Immortals("S")
    group.waits = False
    tree = tree_of(group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_tree, "_STOPPING", hands)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hands.do, hold)
            while not busy.is_set():  # noqa: ASYNC110  threads announce nothing
                await trio.sleep(0.001)
            with trio.CancelScope() as grace:
                nursery.start_soon(end, grace)
                await tree.terminate(POLICY)
    assert grace.cancelled_caught
    assert group.thaws == 1


async def test_without_any_grace_nobody_is_asked(autojump_clock):
    group = Immortals("S")
    with trio.move_on_after(0) as grace:
        await tree_of(group).terminate(POLICY)
    assert grace.cancelled_caught
    assert group.thaws == 0


async def test_a_leaf_that_may_not_be_thawed_is_said_and_not_raised(nursery, autojump_clock):
    group = Immortals("S")
    tree = tree_of(group)
    nursery.start_soon(tree.terminate, POLICY)
    await group.awaited.wait()
    nursery.cancel_scope.cancel(reason="the grace is over")
    skipped = (await tree.kill(POLICY)).skipped
    assert Skipped(pid=0, reason="the leaf cannot be thawed: Permission denied") in skipped


async def test_a_leaf_that_cannot_be_removed_is_no_proof(autojump_clock):
    group = Immortals()
    group.busy = OSError(errno.EBUSY, "Device or resource busy")
    tree = tree_of(group)
    report = await tree.kill(POLICY)
    reason = "the leaf cannot be removed: Device or resource busy"
    assert (report.emptied, report.skipped) == (False, (Skipped(pid=0, reason=reason),))
    group.busy = None
    assert (await tree.kill(POLICY)).emptied


async def test_protection_keeps_a_leaf_from_being_killed_at_once(autojump_clock):
    group = Immortals("S", "S")
    policy = replace(POLICY, protected_pids=frozenset({FIRST}))
    report = await tree_of(group).kill(policy)
    assert group.kills == 0
    assert Skipped(pid=FIRST, reason="protected") in report.skipped
    assert not report.emptied
