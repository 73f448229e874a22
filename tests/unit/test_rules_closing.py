"""An issue that others end in its source is ended here too, while it is worked on or waits."""

import pytest
import trio

from factoryd.core.closing import GONE_FOR_S, tell_closed
from factoryd.core.events import IssueStopping, OutcomeWritten, RunStarting
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.model import Closed, IssueState
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, configure, factory

__all__ = ["factory"]

S = IssueState
CRASH, FOREVER = Program(status=1), Program()


async def running(factory, daemon):
    await daemon.wait_runs(IMPL)


async def frozen(factory, daemon):
    await daemon.wait_runs(IMPL)
    await daemon.scheduler.freeze("AR-1", "a look")


async def resuming(factory, daemon):
    factory.script.parts[IMPL] = [CRASH, FOREVER]
    await daemon.wait_for(lambda: "run-emptied" in factory.story("AR-1"))


async def cooldown(factory, daemon):
    factory.script.parts[IMPL] = [CRASH]
    await daemon.wait_state("AR-1", S.COOLDOWN)


@pytest.mark.parametrize("outcome", sorted(TERMINAL))
@pytest.mark.parametrize("arrange", [running, frozen, resuming, cooldown])
async def test_an_issue_that_is_closed_in_its_source_ends_as_that_at_once(
    autojump_clock, factory, arrange, outcome
):
    configure(factory, resume={"delay": 5.0})
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        factory.put("AR-1")
        await arrange(factory, daemon)
        runs, closed_at = len(factory.of_kind(RunStarting)), trio.current_time()
        factory.source.put_away("AR-1", outcome)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert trio.current_time() - closed_at < 1
        await trio.sleep(1000)
        assert daemon.state("AR-1") is outcome
        assert factory.left() == []
    assert len(factory.of_kind(RunStarting)) == runs, "nothing is started any more"
    assert len(factory.of_kind(IssueStopping)) == len(factory.of_kind(OutcomeWritten)) == 1
    (note,) = factory.source.outcomes["AR-1"]
    assert note.state is outcome


async def test_an_issue_that_is_nowhere_any_more_is_cancelled_once_that_lasts(
    autojump_clock, factory
):
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.source.take_away("AR-1")
        await trio.sleep(GONE_FOR_S / 2)
        assert daemon.state("AR-1") is S.RUNNING
        await trio.sleep(GONE_FOR_S)
        assert daemon.state("AR-1") is S.CANCELLED
        assert daemon.record("AR-1").reason == "it is gone from its source"
        assert factory.left() == []


async def test_an_issue_that_is_put_elsewhere_for_a_moment_goes_on(autojump_clock, factory):
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        for _ in range(20):
            saved = factory.source.active.pop("AR-1")
            factory.source.touch()
            await trio.sleep(GONE_FOR_S * 0.7)
            factory.source.active["AR-1"] = saved
            factory.source.touch()
            await trio.sleep(GONE_FOR_S * 0.7)
        assert daemon.state("AR-1") is S.RUNNING


async def test_an_issue_that_is_closed_right_before_it_is_begun_ends_as_that_and_nothing_starts(
    autojump_clock, factory
):
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "claim" else None
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        factory.source.put_away("AR-1", S.DONE)
        gate.set()
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.state("AR-1") is S.DONE
    assert factory.script.started == []
    assert len(factory.of_kind(IssueStopping)) == 1


async def test_a_source_that_does_not_answer_ends_nothing(autojump_clock, factory):
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.source.take_away("AR-1")
        factory.source.failure = "the folder is not mounted"
        await trio.sleep(1000)
        assert daemon.state("AR-1") is S.RUNNING
        factory.source.failure = None
        await daemon.wait_state("AR-1", S.CANCELLED)


async def test_an_issue_whose_outcome_is_being_written_is_not_ended_anew_by_its_source(
    autojump_clock, factory
):
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "write_outcome" else None
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        factory.source.put_away("AR-1", S.CANCELLED)
        await trio.sleep(100)
        gate.set()
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.state("AR-1") is S.DONE
    assert factory.of_kind(IssueStopping) == []


async def test_what_was_closed_while_no_daemon_ran_is_ended_by_the_next(autojump_clock, factory):
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    factory.source.put_away("AR-1", S.DONE)
    daemon = await factory.drain()
    assert daemon.state("AR-1") is S.DONE
    assert factory.left() == []
    assert len(factory.of_kind(RunStarting)) == 1


async def test_a_run_that_crashes_after_its_issue_was_ended_waits_for_no_resume(
    autojump_clock, factory
):
    configure(factory, resume={"delay": 300.0})
    factory.script.parts[IMPL] = [Program(status=1, after_s=10)]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.ledger.record(IssueStopping(issue="AR-1", reason="x", outcome=S.DONE))
        await daemon.wait_state("AR-1", S.DONE)
        assert trio.current_time() - factory.script.moments[0] < 20
    assert len(factory.of_kind(RunStarting)) == 1


def test_what_is_shown_as_ended_is_over_at_once_and_what_is_nowhere_only_once_that_lasts():
    shown, gone = Closed(key="A", outcome=S.DONE), Closed(key="B", outcome=None)
    over, missing = tell_closed([shown, gone], {}, 10.0)
    assert (over, missing) == ((shown,), {"B": 10.0})
    assert tell_closed([gone], missing, 10.0 + GONE_FOR_S / 2) == ((), {"B": 10.0})
    assert tell_closed([], missing, 11.0) == ((), {})
    assert tell_closed([gone], missing, 10.0 + GONE_FOR_S) == (
        (Closed(key="B", outcome=S.CANCELLED),),
        {},
    )
