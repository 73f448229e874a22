"""Freezing an issue and thawing it: who stands still, what waits, which clocks go on."""

import pytest
import trio

from factoryd.core.config import AgentConfig
from factoryd.core.errors import FactoryError, IllegalFact, NoSuchTarget
from factoryd.core.events import AttemptEnded, IssueFrozen, RunResult, RunStarting, kind_of
from factoryd.core.model import IssueState
from factoryd.flow.frost import SETTLE_S, Settled
from tests.fakes.trees import FakeTree, FakeTrees, Program
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState
DONE, CRASH, FOREVER = Program(status=0), Program(status=1), Program()
TEN = Program(status=0, after_s=10.0)


def life(factory, agent=IMPL):
    return next(one for one in factory.world.lives.values() if one.place.agent == agent)


async def test_a_frozen_run_stands_still_and_ends_later_by_as_much(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [TEN]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        began = trio.current_time()
        assert await daemon.scheduler.freeze("ar-1", "lunch") == Settled(done=1, late=0)
        assert life(factory).frozen
        record = daemon.record("AR-1")
        assert (record.frozen, record.frozen_reason) == (True, "lunch")
        await trio.sleep(1000)
        assert daemon.state("AR-1") is S.RUNNING
        assert await daemon.scheduler.thaw("AR-1") == Settled(done=1, late=0)
        assert not life(factory).frozen
        await daemon.wait_state("AR-1", S.DONE)
        assert trio.current_time() - began == pytest.approx(1010, abs=1)


async def test_the_ledger_says_frozen_before_a_tree_is_and_as_long_as_one_is(
    autojump_clock, factory, monkeypatch
):
    """So a daemon that dies in between leaves nothing frozen that the next one takes for running."""
    seen = []
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        freeze, thaw = FakeTree.freeze, FakeTree.thaw

        async def watched_freeze(tree):
            seen.append(("freeze", daemon.record("AR-1").frozen))
            await freeze(tree)

        async def watched_thaw(tree):
            seen.append(("thaw", daemon.record("AR-1").frozen))
            await thaw(tree)

        monkeypatch.setattr(FakeTree, "freeze", watched_freeze)
        monkeypatch.setattr(FakeTree, "thaw", watched_thaw)
        await daemon.scheduler.freeze("AR-1", "asked")
        await daemon.scheduler.thaw("AR-1")
        assert seen == [("freeze", True), ("thaw", True)]
        assert not daemon.record("AR-1").frozen


async def test_all_agents_of_an_issue_are_frozen_and_no_others(autojump_clock, factory):
    configure(
        factory,
        recipes={
            "pair": type(factory.config.recipes["pair"])(stages=(("implementer", "reviewer"),))
        },
    )
    factory.put("AR-1")
    factory.put("AR-2")
    for agent in (IMPL, REVIEW, "ar-2-impl", "ar-2-reviewer"):
        factory.script.parts[agent] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL, REVIEW, "ar-2-impl", "ar-2-reviewer")
        assert await daemon.scheduler.freeze("AR-1", "asked") == Settled(done=2, late=0)
        still = {one.place.agent for one in factory.world.lives.values() if one.frozen}
        assert still == {IMPL, REVIEW}


# -------------------------------------------------------------------------------- what waits


@pytest.mark.parametrize(
    ("parts", "next_start"),
    [
        ({IMPL: [DONE]}, REVIEW),
        ({IMPL: [CRASH, DONE]}, IMPL),
        ({IMPL: [DONE], REVIEW: [Program(status=10), DONE]}, IMPL),
    ],
    ids=["the next stage", "a resume", "another round"],
)
async def test_nothing_of_a_frozen_issue_starts_until_it_is_thawed(
    autojump_clock, factory, parts, next_start
):
    factory.put("AR-1")
    factory.script.parts.update(parts)
    async with factory.daemon() as daemon:
        starts = [IMPL, REVIEW] if REVIEW in parts else [IMPL]
        await daemon.wait_for(lambda: factory.script.started == starts)
        await daemon.scheduler.freeze("AR-1", "asked")
        for one in factory.world.lives.values():
            one.end(one.program.status)  # as a kill from outside would
        await trio.sleep(1000)
        assert factory.script.started == starts
        assert daemon.state("AR-1") is S.RUNNING
        await daemon.scheduler.thaw("AR-1")
        await daemon.wait_for(lambda: len(factory.script.started) > len(starts))
        assert factory.script.started[len(starts)] == next_start
        await daemon.wait_state("AR-1", S.DONE)


async def test_the_next_attempt_of_a_frozen_issue_waits_in_its_cooldown(autojump_clock, factory):
    configure(factory, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        await daemon.scheduler.freeze("AR-1", "asked")
        await trio.sleep(1000)
        assert daemon.state("AR-1") is S.COOLDOWN
        assert daemon.record("AR-1").attempt == 1
        await daemon.scheduler.thaw("AR-1")
        await daemon.wait_state("AR-1", S.DONE)


async def test_a_frozen_issue_keeps_its_slot(autojump_clock, factory):
    configure(factory, daemon={"slots": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        factory.put("AR-2")
        await trio.sleep(1000)
        assert daemon.state("AR-2") is None


async def test_a_run_that_was_about_to_start_when_its_issue_was_frozen_waits(
    autojump_clock, factory
):
    """The freeze is committed after the runner has looked, and before its own fact is."""
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        record, raced = daemon.ledger.record, list[bool]()

        async def freeze_first(*facts):
            if not raced and any(isinstance(fact, RunStarting) for fact in facts):
                raced.append(True)
                await record(IssueFrozen(issue="AR-1", reason="asked"))
            await record(*facts)

        daemon.ledger.record = freeze_first
        await daemon.wait_for(lambda: bool(raced))
        await trio.sleep(1000)
        assert factory.script.started == []
        assert await daemon.scheduler.thaw("AR-1") == Settled(done=0, late=0)
        await daemon.wait_state("AR-1", S.DONE)


# ------------------------------------------------------------------------------------- clocks


def stalls_after(factory, seconds):
    agent = AgentConfig(kind="command", name="impl", command=("x",), stall_after=seconds)
    configure(factory, agents={"implementer": agent}, dispatch={"max_attempts": 1})
    configure(factory, resume={"max_resumes": 0})


async def test_the_stall_clock_of_a_frozen_agent_stands_still(autojump_clock, factory):
    """Frozen after 40 of 100 seconds, it has 60 left when it goes on."""
    stalls_after(factory, 100.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.runner.sample()
        await trio.sleep(40)
        await daemon.scheduler.freeze("AR-1", "asked")
        await trio.sleep(500)
        assert daemon.state("AR-1") is S.RUNNING
        await daemon.scheduler.thaw("AR-1")
        thawed = trio.current_time()
        await daemon.wait_state("AR-1", S.PARKED)
        assert factory.of_kind(AttemptEnded)[0].reason == f"{IMPL} stalled"
        assert trio.current_time() - thawed == pytest.approx(60, abs=1)


async def test_what_a_frozen_agent_had_written_before_does_not_lengthen_its_time(
    autojump_clock, factory
):
    stalls_after(factory, 100.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        await trio.sleep(50)
        daemon.follower.write(IMPL)
        await trio.sleep(500)
        await daemon.scheduler.thaw("AR-1")
        thawed = trio.current_time()
        await daemon.wait_state("AR-1", S.PARKED)
        assert trio.current_time() - thawed == pytest.approx(100, abs=1)


async def test_the_time_limit_of_an_attempt_goes_on_while_it_is_frozen(autojump_clock, factory):
    configure(factory, dispatch={"time_limit": 100.0, "max_attempts": 2, "error_cooldown": 1.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        await daemon.wait_state("AR-1", S.COOLDOWN)
        assert factory.left() == []
        await trio.sleep(1000)
        assert daemon.record("AR-1").frozen, "the issue stays frozen, its attempt has failed"
        assert daemon.state("AR-1") is S.COOLDOWN


# --------------------------------------------------------------------- ends, deaths, refusals


async def test_a_frozen_issue_can_be_killed_and_leaves_nothing(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(children=3)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        began = trio.current_time()
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        assert trio.current_time() - began < 1, "it is thawed, so it can end by itself"
        assert factory.left() == []
        assert not daemon.record("AR-1").frozen


async def test_an_issue_that_is_frozen_between_two_runs_can_be_killed(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "run-emptied" in factory.story("AR-1"))
        await daemon.scheduler.freeze("AR-1", "asked")
        await trio.sleep(100)
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        await daemon.wait_state("AR-1", S.CANCELLED)


async def test_a_daemon_that_stops_empties_frozen_trees_and_the_next_one_waits_for_the_thaw(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
    assert factory.left() == []
    async with factory.daemon() as daemon:
        await trio.sleep(1000)
        assert daemon.record("AR-1").frozen
        assert factory.script.started == [IMPL]
        await daemon.scheduler.thaw("AR-1")
        await daemon.wait_state("AR-1", S.DONE)


async def test_after_the_daemons_death_a_frozen_issue_is_frozen_again_until_it_is_thawed(
    autojump_clock, factory
):
    """Dead between the fact and the trees, the next daemon does what was promised."""
    stalls_after(factory, 100.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.ledger.record(IssueFrozen(issue="AR-1", reason="asked"))
        factory.kill_daemon()
    assert not life(factory).frozen
    async with factory.daemon() as daemon:
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1)
        assert life(factory).frozen
        await trio.sleep(1000)
        assert daemon.state("AR-1") is S.RUNNING
        await daemon.scheduler.thaw("AR-1")
        assert not life(factory).frozen
    assert factory.script.started == [IMPL]


@pytest.mark.parametrize(
    ("adopted_after_s", "settled"),
    [(SETTLE_S / 2, Settled(done=1, late=0)), (SETTLE_S * 2, Settled(done=0, late=1))],
)
async def test_an_agent_that_stands_still_goes_on_if_it_is_thawed_before_it_is_taken_over(
    autojump_clock, factory, monkeypatch, adopted_after_s, settled
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        factory.kill_daemon()
    assert life(factory).frozen
    adopt = FakeTrees.adopt

    async def adopt_slowly(trees, place, identity):
        await trio.sleep(adopted_after_s)
        return await adopt(trees, place, identity)

    monkeypatch.setattr(FakeTrees, "adopt", adopt_slowly)
    async with factory.daemon() as daemon:
        assert await daemon.scheduler.thaw("AR-1") == settled
        assert not daemon.record("AR-1").frozen
        await trio.sleep(adopted_after_s)
        assert not life(factory).frozen


async def test_a_tree_that_cannot_be_frozen_is_reported_and_costs_no_run(
    autojump_clock, factory, monkeypatch, caplog
):
    async def refuse(tree):
        await trio.lowlevel.checkpoint()
        raise PermissionError(1, "Operation not permitted")

    factory.put("AR-1")
    factory.script.parts[IMPL] = [TEN]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        monkeypatch.setattr(FakeTree, "freeze", refuse)
        began = trio.current_time()
        assert await daemon.scheduler.freeze("AR-1", "asked") == Settled(done=0, late=1)
        assert trio.current_time() - began == pytest.approx(SETTLE_S)
        assert "cannot be frozen: Operation not permitted" in caplog.text
        assert await daemon.scheduler.thaw("AR-1") == Settled(done=1, late=0)
        await daemon.wait_state("AR-1", S.DONE)


async def test_a_tree_that_never_stands_still_goes_on_all_the_same(
    autojump_clock, factory, monkeypatch
):
    freeze = FakeTree.freeze

    async def freeze_in_part(tree):
        await freeze(tree)
        await trio.sleep_forever()

    factory.put("AR-1")
    factory.script.parts[IMPL] = [TEN]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        monkeypatch.setattr(FakeTree, "freeze", freeze_in_part)
        assert await daemon.scheduler.freeze("AR-1", "asked") == Settled(done=0, late=1)
        assert await daemon.scheduler.thaw("AR-1") == Settled(done=1, late=0)
        assert not life(factory).frozen
        await daemon.wait_state("AR-1", S.DONE)


async def test_a_thaw_that_is_given_up_leaves_the_issue_frozen(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        thaw, slow = FakeTree.thaw, trio.Event()

        async def thaw_slowly(tree):
            await slow.wait()
            await thaw(tree)

        monkeypatch.setattr(FakeTree, "thaw", thaw_slowly)
        with trio.move_on_after(1):
            await daemon.scheduler.thaw("AR-1")
        slow.set()
        await trio.sleep(1)
        assert daemon.record("AR-1").frozen
        assert life(factory).frozen


async def test_what_may_not_be_frozen_or_thawed_is_refused_with_the_reason(autojump_clock, factory):
    configure(factory, daemon={"slots": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.put("AR-2")
        await trio.sleep(100)
        freeze, thaw = daemon.scheduler.freeze, daemon.scheduler.thaw
        with pytest.raises(NoSuchTarget, match="AR-9: no such issue"):
            await freeze("AR-9", "asked")
        with pytest.raises(FactoryError, match="AR-2 is not under way: it waits to be claimed"):
            await freeze("AR-2", "asked")
        with pytest.raises(IllegalFact, match="AR-1: it is not frozen"):
            await thaw("AR-1")
        await freeze("AR-1", "lunch")
        with pytest.raises(IllegalFact, match="AR-1: it is frozen already: lunch"):
            await freeze("AR-1", "asked")
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        with pytest.raises(FactoryError, match="AR-1 is not under way: it is stopping"):
            await thaw("AR-1")
        await daemon.wait_state("AR-1", S.CANCELLED)
        with pytest.raises(FactoryError, match="AR-1 has ended already: it is cancelled"):
            await freeze("AR-1", "asked")
    assert factory.story("AR-1").count("issue-frozen") == 1


async def test_an_issue_whose_last_agent_ends_while_it_is_frozen_is_done_and_not_frozen(
    autojump_clock, factory
):
    configure(
        factory, recipes={"pair": type(factory.config.recipes["pair"])(stages=(("implementer",),))}
    )
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        life(factory).end(0)
        await daemon.wait_state("AR-1", S.DONE)
        assert not daemon.record("AR-1").frozen
    kinds = [kind_of(fact) for fact in factory.facts("AR-1")]
    assert "issue-thawed" not in kinds
    assert RunResult.STALLED not in kinds
