"""How an issue ends: trees emptied once, names free after that, the outcome written once, last."""

import itertools

import pytest
import trio
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.errors import SourceFailed
from factoryd.core.events import (
    AttemptEnded,
    IssueCancelled,
    IssueDone,
    IssueParked,
    OutcomeWritten,
    RunEmptied,
    RunStarting,
)
from factoryd.core.model import IssueState
from factoryd.flow.shop import RETRY_AFTER_S
from tests.fakes.source import FakeSource
from tests.fakes.trees import FakeTree, Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.test_views import overview_of

__all__ = ["factory"]

S = IssueState
CRASH, FOREVER = Program(status=1), Program()
ENDS = ("issue-done", "issue-parked", "issue-cancelled")


@pytest.fixture
def emptied(monkeypatch):
    """Which trees were proven empty, in order, as often as that was asked for."""
    runs = []
    kill = FakeTree.kill

    async def noted(tree, policy):
        runs.append(tree.place.run)
        return await kill(tree, policy)

    monkeypatch.setattr(FakeTree, "kill", noted)
    return runs


async def stop(daemon, grace_s=None):
    await daemon.scheduler.kill(["AR-1"], "asked by a test", grace_s)


async def shown_reason(daemon, key="AR-1"):
    (shown,) = (await overview_of(daemon).status([key])).issues
    return shown.reason


def life_of(factory, agent):
    (life,) = [one for one in factory.world.lives.values() if one.place.agent == agent]
    return life


def assert_ended_once(factory, emptied):
    runs = [one.run for one in factory.of_kind(RunStarting)]
    assert sorted(emptied) == sorted(runs), "each tree is emptied once"
    assert sorted(one.run for one in factory.of_kind(RunEmptied)) == sorted(runs)
    story = factory.story("AR-1")
    (end,) = [kind for kind in story if kind in ENDS]
    assert story.count("attempt-ended") == story.count("outcome-written") == 1
    order = ["run-emptied", "attempt-ended", end, "outcome-written"]
    assert [kind for kind in story if kind in order][-4:] == order
    (note,) = factory.source.outcomes["AR-1"]
    assert end == f"issue-{note.state}"
    assert factory.store.held == set()
    assert factory.left() == []


ARRIVALS = ("exit", "kill", "release", "closed")


@pytest.mark.parametrize("closed_as", [S.DONE, S.CANCELLED, None])
@pytest.mark.parametrize("apart", [0, 1, 5])
@pytest.mark.parametrize("order", list(itertools.permutations(ARRIVALS)), ids="-".join)
async def test_whatever_arrives_at_once_ends_an_issue_once(
    autojump_clock, factory, emptied, order, apart, closed_as
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(REVIEW)

        async def arrive(what):
            match what:
                case "exit":
                    life_of(factory, REVIEW).end(0)
                case "closed" if closed_as is None:
                    factory.source.take_away("AR-1")
                case "closed":
                    factory.source.put_away("AR-1", closed_as)
                case "release":
                    await daemon.scheduler.release("AR-1", "asked by a test")
                case _:
                    await stop(daemon, grace_s=0.0)

        async with trio.open_nursery() as nursery:
            for what in order:
                nursery.start_soon(arrive, what)
                for _ in range(apart):
                    await trio.lowlevel.checkpoint()
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        await trio.sleep(1000)
    assert_ended_once(factory, emptied)


@pytest.mark.parametrize("between", range(8))
async def test_a_kill_some_moments_after_the_last_exit_ends_an_issue_once(
    autojump_clock, factory, emptied, between
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(REVIEW)
        life_of(factory, REVIEW).end(0)
        for _ in range(between * 3):
            await trio.lowlevel.checkpoint()
        if not daemon.record("AR-1").written:
            await stop(daemon)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        await trio.sleep(1000)
    assert_ended_once(factory, emptied)


async def test_an_issue_that_is_killed_by_many_at_once_is_ended_once(
    autojump_clock, factory, emptied
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True, children=3)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(stop, daemon)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
    assert_ended_once(factory, emptied)
    assert factory.story("AR-1").count("issue-stopping") == 1


async def test_names_are_held_until_a_tree_is_empty_and_free_before_the_outcome_is_written(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [Program(status=0, children=2, ignores_terminate=True)]
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "write_outcome" else None
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: factory.story("AR-1").count("run-exited") == 2)
        await trio.sleep(5)
        assert factory.left() == [REVIEW], "what its root has left is given the grace"
        assert f"agent:{REVIEW}" in factory.store.held
        assert ("write_outcome", "AR-1") not in factory.source.calls
        await daemon.wait_state("AR-1", S.DONE)
        await trio.testing.wait_all_tasks_blocked()
        assert ("write_outcome", "AR-1") in factory.source.calls
        assert factory.store.held == set()
        assert factory.left() == []
        assert factory.of_kind(OutcomeWritten) == []
        gate.set()
        await daemon.wait_for(lambda: daemon.record("AR-1").written)


class Stubborn(FakeSource):
    """A source that cannot write outcomes while `error` is set."""

    def __init__(self, factory):
        super().__init__()
        self.error = None
        self.tried_at = []
        factory.source, factory.sources = self, [self]

    @override
    async def write_outcome(self, issue, note):
        self.tried_at.append(trio.current_time())
        if self.error is not None and issue.key == "AR-1":
            await trio.lowlevel.checkpoint()
            raise self.error
        await super().write_outcome(issue, note)


async def test_a_write_back_that_fails_is_retried_with_growing_waits(autojump_clock, factory):
    factory.source.failure = None
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        factory.script.parts[REVIEW] = [Program(status=0, after_s=10)]
        await daemon.wait_runs(REVIEW)
        factory.source.failure = "the folder is not mounted"
        tries = []

        def note(method):
            if method == "read":
                tries.append(trio.current_time())

        factory.source.before = note
        await daemon.wait_state("AR-1", S.DONE)
        await trio.sleep(sum(RETRY_AFTER_S) + 61)
        assert tries
        waits = [b - a for a, b in itertools.pairwise(tries)]
        assert waits == pytest.approx([*RETRY_AFTER_S, RETRY_AFTER_S[-1]])


@pytest.mark.parametrize("failing", ["it is not mounted", "a bug in the source"])
async def test_a_write_back_that_fails_keeps_the_claim_shows_in_status_and_costs_nobody_else(
    autojump_clock, factory, failing
):
    source = Stubborn(factory)
    known = failing == "it is not mounted"
    factory.put("AR-1")
    source.error = None
    async with factory.daemon() as daemon:
        source.error = SourceFailed(failing) if known else ZeroDivisionError(failing)
        await daemon.wait_state("AR-1", S.DONE)
        await trio.sleep(400)
        assert not daemon.record("AR-1").written
        assert len(source.tried_at) > 3
        assert "AR-1" in source.active
        assert failing in (await shown_reason(daemon) or "")
        assert daemon.shop.slots.free == 2
        source.put(replace(source.active["AR-1"], title="a copy"))
        factory.put("AR-2")
        await daemon.wait_for(lambda: "AR-2" in source.outcomes)
        await trio.sleep(400)
        assert factory.script.started.count(IMPL) == 1, "it is claimed and not worked on again"
        source.take_away("AR-1")
        source.error = None
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert await shown_reason(daemon) is None
    assert [one.state for one in source.outcomes["AR-1"]] == [S.DONE]


async def test_every_way_to_end_writes_the_outcome_that_the_ledger_knows(autojump_clock, factory):
    configure(factory, daemon={"slots": 3}, dispatch={"max_attempts": 1}, resume={"max_resumes": 0})
    for key in ("AR-1", "AR-2", "AR-3"):
        factory.put(key)
    factory.script.parts |= {"ar-2-impl": [CRASH], "ar-3-impl": [FOREVER]}
    async with factory.daemon() as daemon:
        await daemon.wait_runs("ar-3-impl")
        await daemon.scheduler.kill(["AR-3"], "enough", None)
        await daemon.wait_for(lambda: len(factory.of_kind(OutcomeWritten)) == 3)
    kinds = {"AR-1": IssueDone, "AR-2": IssueParked, "AR-3": IssueCancelled}
    for key, kind in kinds.items():
        (end,) = factory.of_kind(kind)
        (note,) = factory.source.outcomes[key]
        assert (end.issue, note.reason) == (key, getattr(end, "reason", None))
    assert len(factory.of_kind(AttemptEnded)) == 3
