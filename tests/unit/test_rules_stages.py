"""Stages and rounds: who runs together, whom a failure ends, what a reviewer's no leads to."""

import pytest
import trio

from factoryd.core.assignment import factory_variables
from factoryd.core.config import AgentConfig, RecipeConfig
from factoryd.core.events import AttemptEnded, IssueParked, RunEmptied, RunResult, StageStarted
from factoryd.core.model import Exit, IssueState, RunId
from factoryd.core.policy import Ending, NextStep, decide_exit
from factoryd.flow.attempt import FEEDBACK_LINES
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState
DONE, CRASH, CHANGES, LATER = (Program(status=n) for n in (0, 1, 10, 75))
OTHER = "ar-1-other"


@pytest.fixture
def together(factory):
    """A first stage of two agents, a second of the reviewer."""
    recipe(factory)
    factory.put("AR-1")
    return factory


def recipe(factory, **fields):
    other = AgentConfig(kind="command", name="other", command=("x",))
    made = RecipeConfig(stages=(("implementer", "other"), ("reviewer",)), **fields)
    configure(factory, agents={"other": other}, recipes={"pair": made})


def results(factory):
    return {one.run.rpartition("-")[0]: one.result for one in factory.of_kind(RunEmptied)}


async def test_the_agents_of_a_stage_run_together_and_the_next_stage_after_them(
    autojump_clock, together
):
    together.script.parts |= {IMPL: [Program(status=0, after_s=9)], OTHER: [DONE]}
    await together.drain()
    moments = dict(zip(together.script.started, together.script.moments, strict=True))
    assert moments[IMPL] == moments[OTHER]
    assert moments[REVIEW] - moments[IMPL] == pytest.approx(9)


async def test_one_that_fails_cancels_its_siblings_gracefully(autojump_clock, together):
    configure(together, dispatch={"max_attempts": 1}, resume={"max_resumes": 0})
    together.script.parts |= {IMPL: [CRASH], OTHER: [Program()]}
    await together.drain()
    assert results(together) == {IMPL: RunResult.CRASHED, OTHER: RunResult.STOPPED}
    stopped = next(one for one in together.of_kind(RunEmptied) if one.run.startswith(OTHER))
    assert "SIGTERM" in stopped.report.signals
    assert together.of_kind(AttemptEnded)[0].reason == "ar-1-impl exited with 1"


async def test_one_that_fails_leaves_its_siblings_alone_when_the_recipe_says_wait(
    autojump_clock, together
):
    recipe(together, on_failure="wait")
    configure(together, dispatch={"max_attempts": 1}, resume={"max_resumes": 0})
    together.script.parts |= {IMPL: [CRASH], OTHER: [Program(status=0, after_s=70)]}
    began = trio.current_time()
    await together.drain()
    assert results(together) == {IMPL: RunResult.CRASHED, OTHER: RunResult.SUCCEEDED}
    assert trio.current_time() - began >= 70


async def test_one_that_is_resumed_has_not_failed_its_stage_yet(autojump_clock, together):
    together.script.parts |= {IMPL: [CRASH, DONE], OTHER: [Program(status=0, after_s=30)]}
    await together.drain()
    assert results(together)[OTHER] is RunResult.SUCCEEDED
    assert together.source.outcomes["AR-1"][0].state is S.DONE


def test_exit_10_is_a_verdict_only_of_a_later_stage():
    first = Ending(exit=Exit(status=10), max_resumes=1)
    later = Ending(exit=Exit(status=10), max_resumes=1, later_stage=True)
    assert decide_exit(first) is NextStep.RESUME
    assert decide_exit(later) is NextStep.ANOTHER_ROUND


async def test_exit_10_goes_back_to_the_first_stage_with_the_round_raised_and_the_last_lines(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [CHANGES, DONE]
    factory.desk.output[REVIEW] = [f"line {n}" for n in range(FEEDBACK_LINES + 50)]
    await factory.drain()
    told = [factory_variables(one, RunId("r"), None) for one in factory.kind.told]
    assert [(one["FACTORY_AGENT"], one["FACTORY_ROUND"]) for one in told] == [
        (IMPL, "1"),
        (REVIEW, "1"),
        (IMPL, "2"),
        (REVIEW, "2"),
    ]
    files = [one.get("FACTORY_FEEDBACK_FILE") for one in told]
    assert files == [None, None] + [factory.desk.feedback_path("AR-1")] * 2
    assert factory.desk.feedback["AR-1"].splitlines()[-1] == f"line {FEEDBACK_LINES + 49}"
    assert len(factory.desk.feedback["AR-1"].splitlines()) == FEEDBACK_LINES
    stages = [(one.round, one.stage) for one in factory.of_kind(StageStarted)]
    assert stages == [(1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("rounds", [1, 2, 5])
async def test_rounds_used_up_park_the_issue_with_that_reason(autojump_clock, factory, rounds):
    made = RecipeConfig(stages=(("implementer",), ("reviewer",)), max_rounds=rounds)
    configure(factory, recipes={"pair": made}, dispatch={"max_attempts": 5})
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [CHANGES]
    daemon = await factory.drain()
    assert factory.script.started == [IMPL, REVIEW] * rounds
    assert [one.reason for one in factory.of_kind(IssueParked)] == ["review rounds used up"]
    assert daemon.record("AR-1").attempts_used == 1, "no further attempt is made"


async def test_a_failure_in_a_stage_outweighs_a_reviewers_no(autojump_clock, factory):
    second = AgentConfig(kind="command", name="second", command=("x",))
    made = RecipeConfig(stages=(("implementer",), ("reviewer", "second")), on_failure="wait")
    configure(
        factory,
        agents={"second": second},
        recipes={"pair": made},
        dispatch={"max_attempts": 1},
        resume={"max_resumes": 0},
    )
    factory.put("AR-1")
    factory.script.parts |= {REVIEW: [CHANGES], "ar-1-second": [CRASH]}
    daemon = await factory.drain()
    assert daemon.record("AR-1").round == 1
    assert factory.of_kind(AttemptEnded)[0].reason == "ar-1-second exited with 1"


async def test_not_now_ends_the_attempt_without_counting_it(autojump_clock, together):
    together.script.parts |= {IMPL: [LATER, DONE], OTHER: [Program(status=0, after_s=5)]}
    await together.drain()
    assert together.source.outcomes["AR-1"][0].attempts == 1
    assert results(together)[OTHER] is RunResult.SUCCEEDED
