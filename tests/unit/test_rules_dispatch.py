"""A dispatch that fails halfway, and what becomes of trees that cannot be emptied."""

import pytest
import trio

from factoryd.core.config import AgentConfig, RecipeConfig
from factoryd.core.errors import IllegalFact, LedgerUnavailable
from factoryd.core.events import (
    AttemptEnded,
    HandoffCleared,
    HandoffMade,
    IssueDone,
    RunEmptied,
    RunResult,
    RunStarted,
    RunStarting,
)
from factoryd.core.model import IssueState, Skipped
from factoryd.core.registry import Draft, Registry
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import (
    attempt_ended,
    attempt_started,
    claimed,
    handoff_cleared,
    handoff_made,
    run_starting,
)

__all__ = ["factory"]

S = IssueState
FOREVER, DONE, CRASH = Program(), Program(status=0), Program(status=1)
STUCK = (Skipped(pid=99, reason="uninterruptible sleep"),)
CANNOT = Program(cannot_start="./c.sh: No such file")
TEAM = ("ar-1-a", "ar-1-b", "ar-1-c")


@pytest.fixture
def team(factory):
    """A stage of three agents, of which the third cannot start."""
    agents = {name: AgentConfig(kind="command", name=name, command=("x",)) for name in "abc"}
    configure(
        factory,
        agents=agents,
        recipes={"pair": RecipeConfig(stages=(("a", "b", "c"),))},
        dispatch={"max_attempts": 1},
    )
    factory.script.parts |= dict(zip(TEAM, ([FOREVER], [FOREVER], [CANNOT]), strict=True))
    factory.put("AR-1")
    return factory


async def test_agents_already_started_are_emptied_before_the_attempt_is_recorded_as_failed(
    autojump_clock, team
):
    team.script.parts["ar-1-a"] = [Program(children=2, ignores_terminate=True)]
    await team.drain()
    story = team.story("AR-1")
    assert story.count("run-emptied") == story.count("run-starting") == 3
    last = max(n for n, kind in enumerate(story) if kind == "run-emptied")
    assert last < story.index("attempt-ended") < story.index("issue-parked")
    assert team.left() == []
    assert team.of_kind(AttemptEnded)[0].reason == "./c.sh: No such file"
    assert team.store.held == set(), "the issue and all names are free"


async def test_what_a_failed_dispatch_cannot_empty_becomes_a_handoff(autojump_clock, team):
    team.script.parts["ar-1-a"] = [Program(survivors=STUCK)]
    await team.drain()
    (made,) = team.of_kind(HandoffMade)
    assert made.run.startswith("ar-1-a-")
    assert team.story("AR-1").index("handoff-made") < team.story("AR-1").index("attempt-ended")


async def test_an_agent_that_cannot_start_costs_its_stage_nothing_when_the_recipe_says_wait(
    autojump_clock, team
):
    configure(team, recipes={"pair": RecipeConfig(stages=(("a", "b", "c"),), on_failure="wait")})
    for agent in TEAM[:2]:
        team.script.parts[agent] = [Program(status=0, after_s=50)]
    await team.drain()
    ends = {one.run.rpartition("-")[0]: one.result for one in team.of_kind(RunEmptied)}
    assert ends == {
        "ar-1-a": RunResult.SUCCEEDED,
        "ar-1-b": RunResult.SUCCEEDED,
        "ar-1-c": RunResult.CRASHED,
    }
    assert team.of_kind(AttemptEnded)[0].reason == "./c.sh: No such file"


# ------------------------------------------------------------------------------------ handoffs


def fold(registry, *facts):
    draft = Draft(registry)
    for fact in facts:
        draft.add(fact, 1.0)
    registry.accept(draft, registry.seq + len(facts))


def owing():
    """Return a registry that owes the tree of a run."""
    registry = Registry()
    fold(registry, claimed(), attempt_started(), run_starting(), handoff_made())
    return registry


def test_a_handoff_survives_whatever_is_written_later():
    registry = owing()
    fold(registry, attempt_ended(not_before=2.0), attempt_started(attempt=2))
    fold(registry, attempt_ended(attempt=2), claimed("AR-2"))
    assert list(registry.handoffs) == ["ar-1-impl-1"]
    assert list(Registry.replay(registry.snapshot(), []).handoffs) == ["ar-1-impl-1"]


async def test_a_handoff_survives_stops_and_restarts(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(survivors=STUCK)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
    for _ in range(3):
        async with factory.daemon() as daemon:
            assert len(daemon.ledger.registry.handoffs) == 1
            factory.kill_daemon()
        async with factory.daemon() as daemon:
            assert len(daemon.ledger.registry.handoffs) == 1
    assert factory.of_kind(HandoffCleared) == []


async def test_a_write_that_fails_leaves_the_handoff_that_was_there_before(autojump_clock, factory):
    factory.put("AR-1")
    factory.put("AR-2")
    factory.script.parts |= {
        IMPL: [Program(survivors=STUCK)],
        "ar-2-impl": [Program(survivors=STUCK)],
    }
    with pytest.RaisesGroup(
        pytest.RaisesExc(LedgerUnavailable), allow_unwrapped=True, flatten_subgroups=True
    ):
        async with factory.daemon() as daemon:
            await daemon.wait_runs(IMPL, "ar-2-impl")
            await daemon.scheduler.kill(["AR-1"], "asked", None)
            await daemon.wait_for(lambda: bool(daemon.ledger.registry.handoffs))
            before = dict(daemon.ledger.registry.handoffs)
            factory.store.refusal = "the disk is full"
            daemon.ledger.give_up()
            daemon.work.cancel(reason="stopping on a full disk")
            await trio.sleep(100)
            assert daemon.ledger.registry.handoffs == before
    factory.store.refusal = None
    assert set(before) <= set(Registry.replay(*factory.store.load()).handoffs)


async def test_an_agent_succeeds_later_only_once_its_old_tree_is_proven_empty(
    autojump_clock, factory
):
    """So there is no success that a handoff of the same agent outlives."""
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1, survivors=STUCK, children=1), DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        for life in factory.world.lives.values():
            life.program = Program()
        await daemon.wait_state("AR-1", S.DONE)
        assert daemon.ledger.registry.handoffs == {}
    story = factory.story("AR-1")
    succeeded = [
        one.run for one in factory.of_kind(RunEmptied) if one.result is RunResult.SUCCEEDED
    ]
    assert [run.startswith(IMPL) for run in succeeded] == [True, False]
    assert story.index("handoff-cleared") < story.index("run-emptied")


async def test_a_protected_process_is_never_recorded_as_ours(autojump_clock, factory):
    protected = Skipped(pid=7, reason="protected")
    configure(factory, protect={"pids": (7,)})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(survivors=(protected,))]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(daemon.ledger.registry.handoffs))
        (handoff,) = daemon.ledger.registry.handoffs.values()
    (started,) = factory.of_kind(RunStarted)
    assert handoff.identity == started.identity
    assert started.identity.pid != 7
    assert factory.of_kind(HandoffMade)[0].report.skipped == (protected,)


def test_no_handoff_is_cleared_twice_or_without_having_been_made():
    registry = owing()
    fold(registry, handoff_cleared())
    with pytest.raises(IllegalFact, match="not handed off"):
        fold(registry, handoff_cleared())


async def test_a_run_that_never_began_is_no_reason_not_to_begin_again(autojump_clock, factory):
    configure(factory, dispatch={"max_attempts": 2})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CANNOT, DONE]
    await factory.drain()
    assert len(factory.of_kind(RunStarting)) == 3
    assert len(factory.of_kind(IssueDone)) == 1
    assert factory.script.started == [IMPL, IMPL, REVIEW]
