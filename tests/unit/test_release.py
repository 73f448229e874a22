"""An issue whose work was done elsewhere ends as done: once, emptied, and written back."""

from contextlib import suppress

import pytest
import trio

from factoryd.core.errors import FactoryError, IllegalFact, NoSuchTarget
from factoryd.core.events import IssueCancelled, IssueDone, IssueStopping, OutcomeWritten
from factoryd.core.model import IssueState
from factoryd.core.registry import Draft, Registry
from factoryd.flow.steering import Steering
from factoryd.wire.messages import ReleaseCall
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, configure, factory
from tests.unit.samples import KEY, claimed
from tests.unit.test_views import overview_of

__all__ = ["factory"]

S = IssueState
CRASH, DONE, FOREVER = Program(status=1), Program(status=0), Program()


@pytest.mark.parametrize(
    ("outcome", "right", "wrong"),
    [
        (S.DONE, IssueDone(issue=KEY, reason="x"), IssueCancelled(issue=KEY, reason="x")),
        (S.CANCELLED, IssueCancelled(issue=KEY, reason="x"), IssueDone(issue=KEY)),
    ],
)
def test_what_is_being_stopped_ends_as_it_was_asked_to(outcome, right, wrong):
    draft = Draft(Registry())
    draft.add(claimed(), 1.0)
    draft.add(IssueStopping(issue=KEY, reason="x", outcome=outcome), 2.0)
    with pytest.raises(IllegalFact, match="it is to end as"):
        draft.add(wrong, 3.0)
    draft.add(right, 3.0)
    record = draft.issues[KEY.casefold()]
    assert (record.state, record.reason) == (outcome, "x")


async def end(daemon, key, state):
    await daemon.wait_state(key, state)
    await daemon.wait_for(lambda: daemon.record(key).written)


async def test_a_running_issue_is_emptied_and_written_back_as_done(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.release("AR-1", "by hand")
        await end(daemon, "AR-1", S.DONE)
        assert factory.left() == []
    kinds = factory.story("AR-1")
    assert kinds.index("run-emptied") < kinds.index("issue-done") < kinds.index("outcome-written")
    (note,) = factory.source.outcomes["AR-1"]
    assert (note.state, note.reason) == (S.DONE, "by hand")


async def test_a_waiting_issue_is_claimed_and_ends_as_done_without_an_agent(
    autojump_clock, factory
):
    configure(factory, daemon={"slots": 1})
    factory.put("AR-1", priority=1)
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-2")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.release("AR-2", "by hand")
        await end(daemon, "AR-2", S.DONE)
    assert ("claim", "AR-2") in factory.source.calls
    assert factory.script.started == [IMPL]
    assert factory.source.ended.keys() == {"AR-2"}


async def hold_back_the_outcome(factory, daemon, part, state):
    """Have AR-1 end somehow while its source cannot be told."""
    factory.source.before = lambda called: trio.Event() if called == "write_outcome" else None
    factory.script.parts[IMPL] = [part]
    factory.put("AR-1")
    if state is S.CANCELLED:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "killed", None)
    await daemon.wait_state("AR-1", state)
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("part", "state", "ends_as"),
    [(CRASH, S.PARKED, S.DONE), (FOREVER, S.CANCELLED, S.CANCELLED), (DONE, S.DONE, S.DONE)],
)
async def test_while_an_outcome_cannot_be_written_a_release_makes_it_done_unless_a_kill_was_first(
    autojump_clock, factory, part, state, ends_as
):
    configure(factory, dispatch={"max_attempts": 1}, resume={"max_resumes": 0})
    async with factory.daemon() as daemon:
        await hold_back_the_outcome(factory, daemon, part, state)
        await daemon.scheduler.release("AR-1", "by hand")
        factory.source.before = lambda _: None
        if state is not ends_as:
            await daemon.wait_for(lambda: len(factory.of_kind(OutcomeWritten)) == 1)
            assert [one.state for one in factory.source.outcomes["AR-1"]] == [ends_as]
        assert daemon.state("AR-1") is ends_as


async def test_an_issue_that_cools_down_is_released_at_once(autojump_clock, factory):
    configure(factory, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        began = trio.current_time()
        await daemon.scheduler.release("AR-1", "by hand")
        await end(daemon, "AR-1", S.DONE)
        assert trio.current_time() - began < 1


@pytest.mark.parametrize("order", [("kill", "release"), ("release", "kill")])
async def test_of_a_release_and_a_kill_the_first_decides_and_there_is_one_outcome(
    autojump_clock, factory, order
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        for verb in order:
            if verb == "kill":
                await daemon.scheduler.kill(["AR-1"], "killed", None)
            else:
                await daemon.scheduler.release("AR-1", "released")
        await end(daemon, "AR-1", S.CANCELLED if order[0] == "kill" else S.DONE)
    assert len(factory.of_kind(OutcomeWritten)) == len(factory.of_kind(IssueStopping)) == 1


async def test_an_exit_a_kill_and_releases_at_the_same_moment_give_one_outcome(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=5.0)]

    async def try_to(call, *args):
        with suppress(FactoryError):  # it has ended already
            await call(*args)

    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await trio.sleep(5.0 - (trio.current_time() - factory.script.moments[0]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(try_to, daemon.scheduler.kill, ["AR-1"], "killed", None)
            for _ in range(3):
                nursery.start_soon(try_to, daemon.scheduler.release, "AR-1", "released")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
    assert len(factory.of_kind(OutcomeWritten)) == 1
    assert len(factory.source.outcomes["AR-1"]) == 1


async def test_what_may_not_be_touched_or_has_ended_or_is_unknown_is_refused(
    autojump_clock, factory
):
    configure(factory, safety={"require_label": "factory"})
    factory.put("AR-1")
    factory.put("AR-2", labels=())
    async with factory.daemon() as daemon:
        await end(daemon, "AR-1", S.DONE)
        for key, error, match in (
            ("AR-1", FactoryError, "has ended already"),
            ("AR-2", FactoryError, "left alone: out of scope"),
            ("Z-9", NoSuchTarget, "no such issue"),
        ):
            with pytest.raises(error, match=match):
                await daemon.scheduler.release(key, "by hand")
    assert ("claim", "AR-2") not in factory.source.calls


async def test_a_release_that_came_after_a_kill_is_told_so(autojump_clock, factory):
    replies = []

    async def say(reply, *, continues=False):
        replies.append(reply)

    def no_stop(reason, *, keep_agents):
        raise AssertionError

    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        steering = Steering(daemon.shop, daemon.scheduler, overview_of(daemon), no_stop)
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        with pytest.raises(FactoryError, match="AR-1 has ended as cancelled: enough"):
            await steering.release(ReleaseCall(target="AR-1"), say, more=False)
    assert replies == []
