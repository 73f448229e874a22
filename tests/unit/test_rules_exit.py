"""What follows a run's end, and a name that is taken when an agent would go on."""

import itertools

import pytest
import trio

from factoryd.core.errors import IllegalFact, NameTaken
from factoryd.core.events import (
    AttemptEnded,
    NameCollided,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarting,
)
from factoryd.core.model import Exit, IssueState, Skipped
from factoryd.core.policy import Ending, NextStep, decide_exit
from factoryd.core.registry import Draft, Registry
from factoryd.flow.ledger import Ledger
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import (
    AGENT,
    RUN,
    attempt_started,
    claimed,
    handoff_made,
    run_emptied,
    run_exited,
    run_started,
    run_starting,
)

__all__ = ["factory"]

S = IssueState
DONE, CRASH, FOREVER = Program(status=0), Program(status=1), Program()
STUCK = (Skipped(pid=99, reason="uninterruptible sleep"),)
LEAKS = Program(status=1, survivors=STUCK, children=1)


def fold(registry, *facts):
    draft = Draft(registry)
    for fact in facts:
        draft.add(fact, 1.0)
    registry.accept(draft, registry.seq + len(facts))


# ------------------------------------------------------------------------------------ the order


@pytest.mark.parametrize(
    ("stopping", "complete", "status", "left", "step"),
    [
        (stopping, complete, status, left, step)
        for stopping, complete, status, left in itertools.product(
            [True, False], [True, False], [0, 1, None], [1, 0]
        )
        for step in [
            NextStep.IGNORE
            if stopping
            else NextStep.RELEASE
            if complete
            else NextStep.FINISH
            if status == 0
            else NextStep.RESUME
            if left
            else NextStep.FAIL
        ]
    ],
)
def test_stopping_then_complete_then_success_then_resume_then_failure(
    stopping, complete, status, left, step
):
    ending = Ending(
        exit=Exit(status=status),
        stopping=stopping,
        complete=complete,
        resumes=0,
        max_resumes=left,
    )
    assert decide_exit(ending) is step


def test_the_end_of_a_run_that_nobody_knows_is_refused():
    registry = Registry()
    fold(registry, claimed(), attempt_started())
    for fact in (run_exited(), run_emptied(), handoff_made()):
        with pytest.raises(IllegalFact, match="is not live"):
            fold(registry, fact)


# ------------------------------------------------------------------- many reports, one decision


@pytest.mark.parametrize("reports", [2, 10, 100])
async def test_concurrent_reports_of_one_exit_lead_to_one_decision(
    autojump_clock, factory, nursery, reports
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        (life,) = factory.world.lives.values()
        for n in range(reports):
            nursery.start_soon(trio.to_thread.run_sync, life.end, n + 1)
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.script.started == [IMPL, IMPL, REVIEW]
    runs = [one.run for one in factory.of_kind(RunExited)]
    assert len(set(runs)) == len(runs) == 3
    assert daemon.ledger.registry.counters.resumed == 1


@pytest.mark.parametrize("reports", [2, 10, 100])
async def test_of_concurrent_facts_about_one_exit_the_first_counts_and_the_others_are_told_so(
    factory, nursery, reports
):
    ledger = Ledger(factory.store, Registry(), factory.clock)
    await nursery.start(ledger.run)
    await ledger.record(claimed(), attempt_started(), run_starting(), run_started())
    refused = []

    async def report(fact):
        try:
            await ledger.record(fact)
        except IllegalFact as error:
            refused.append(str(error))

    async with trio.open_nursery() as reporting:
        for n in range(reports):
            reporting.start_soon(report, run_exited(status=n))
    assert refused == [f"AR-1: how run {RUN} ended is known already"] * (reports - 1)
    async with trio.open_nursery() as reporting:
        for _ in range(reports):
            reporting.start_soon(report, run_emptied(result=RunResult.CRASHED))
    assert len(factory.of_kind(RunExited)) == len(factory.of_kind(RunEmptied)) == 1
    assert len(refused) == 2 * (reports - 1)
    nursery.cancel_scope.cancel(reason="seen")


# ------------------------------------------------------------------------------------- resuming


async def test_a_resume_keeps_the_kind_and_the_session(autojump_clock, factory, monkeypatch):
    record = Ledger.record

    async def with_session(self, *facts):
        await record(self, *[_in_session(fact) for fact in facts])

    monkeypatch.setattr(Ledger, "record", with_session)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, DONE]
    await factory.drain()
    sessions = [(one.agent, one.session) for one in factory.of_kind(RunStarting)]
    assert sessions == [(IMPL, "s-1"), (IMPL, "s-1"), (REVIEW, None)]
    told = [life.command.env["FACTORY_SESSION"] for life in factory.world.lives.values()]
    assert told == ["", "s-1", ""]


def _in_session(fact):
    if isinstance(fact, RunStarting) and fact.agent == IMPL and fact.resumes == 0:
        fields = {name: getattr(fact, name) for name in fact.__struct_fields__}
        return RunStarting(**{**fields, "session": "s-1"})
    return fact


async def test_resumes_are_bounded_per_attempt_and_delayed(autojump_clock, factory):
    configure(factory, resume={"max_resumes": 2, "delay": 3.0}, dispatch={"max_attempts": 2})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    await factory.drain()
    assert [one.resumes for one in factory.of_kind(RunStarting)] == [0, 1, 2, 0, 1, 2]
    moments = factory.script.moments
    for first in (0, 3):
        waits = [moments[first + 1] - moments[first], moments[first + 2] - moments[first + 1]]
        assert waits == pytest.approx([3, 3])


async def test_a_finished_implementer_is_never_resumed(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [CRASH, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: factory.script.started.count(REVIEW) == 1)
        factory.kill_daemon()
    await factory.drain()
    assert factory.script.started.count(IMPL) == 1
    assert decide_exit(Ending(exit=Exit(status=0), resumes=9, max_resumes=10)) is NextStep.FINISH


# ----------------------------------------------------------------------------- a name is taken


async def test_a_name_still_alive_is_terminal_for_that_resume_counted_once_and_warned_about_once(
    autojump_clock, factory, caplog
):
    configure(factory, resume={"max_resumes": 5}, dispatch={"max_attempts": 3})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [LEAKS]
    daemon = await factory.drain()
    assert factory.script.started == [IMPL], "neither resumed nor started beside its old tree"
    assert daemon.ledger.registry.counters.name_collisions == 1
    (collided,) = factory.of_kind(NameCollided)
    assert (collided.agent, [collided.holder]) == (IMPL, list(daemon.ledger.registry.handoffs))
    assert caplog.text.count("name taken: ar-1-impl") == 1
    assert daemon.ledger.registry.counters.resumed == 0
    assert daemon.state("AR-1") is S.PARKED
    first, *later = [str(one.reason) for one in factory.of_kind(AttemptEnded)]
    assert "ar-1-impl exited with 1 and cannot be resumed: 1 process is left" in first
    assert all("is not proven empty yet" in reason for reason in later)
    story = factory.story("AR-1")
    assert story.index("handoff-made") < story.index("name-collided") < story.index("attempt-ended")


async def test_a_collision_is_not_counted_again_after_a_restart(autojump_clock, factory):
    configure(factory, dispatch={"max_attempts": 3, "error_cooldown": 500.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [LEAKS]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.of_kind(NameCollided)))
        factory.kill_daemon()
    daemon = await factory.drain()
    assert len(factory.of_kind(NameCollided)) == 1
    assert daemon.ledger.registry.counters.name_collisions == 1


async def test_a_name_that_another_issue_has_is_a_collision_too(autojump_clock, factory):
    """Agent `b-impl` of issue A and agent `impl` of issue A-B are both called `a-b-impl`."""
    agents = factory.config.agents
    twin = type(agents["implementer"])(kind="command", name="b-impl", command=("x",))
    configure(factory, agents={"twin": twin}, dispatch={"max_attempts": 1})
    recipe = type(factory.config.recipes["pair"])(stages=(("twin",),))
    configure(factory, recipes={"twin": recipe})
    factory.put("A-B", priority=1)
    factory.script.parts["a-b-impl"] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs("a-b-impl")
        factory.put("A", recipe="twin")
        await daemon.wait_state("A", S.PARKED)
        assert daemon.ledger.registry.counters.name_collisions == 1
        assert daemon.state("A-B") is S.RUNNING
    assert "A-B has an agent of that name running" in str(factory.of_kind(AttemptEnded)[0].reason)


def test_a_taken_name_is_an_error_of_its_own_type_that_says_who_has_it():
    registry = Registry()
    fold(registry, claimed(), attempt_started(), run_starting(), handoff_made())
    with pytest.raises(NameTaken) as caught:
        fold(registry, run_starting("second"))
    assert (caught.value.agent, caught.value.holder) == (AGENT, RUN)


@pytest.mark.parametrize("error", [IllegalFact, RuntimeError])
async def test_another_error_that_says_already_exists_is_no_collision(
    autojump_clock, factory, monkeypatch, error
):
    record = Ledger.record

    async def refusing(self, *facts):
        if any(isinstance(fact, RunStarting) and fact.resumes for fact in facts):
            raise error(f"agent {IMPL!r} already exists")
        await record(self, *facts)

    monkeypatch.setattr(Ledger, "record", refusing)
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    daemon = await factory.drain()
    assert factory.of_kind(NameCollided) == []
    assert daemon.ledger.registry.counters.name_collisions == 0
    assert "already exists" in str(factory.of_kind(AttemptEnded)[0].reason)
