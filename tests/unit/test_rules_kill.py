"""A kill ends an issue as cancelled, for good, whatever it is doing at that moment."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from factoryd.core.errors import FactoryError
from factoryd.core.events import IssueCancelled, IssueStopping, OutcomeWritten, RunStarting
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.model import IssueState
from factoryd.flow.slots import PATIENCE_S
from factoryd.flow.steering import Steering
from factoryd.flow.views import find_issue
from factoryd.wire.messages import KillCall
from tests.fakes.factory import Daemon, Factory
from tests.fakes.trees import FakeTrees, Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.test_views import overview_of

__all__ = ["factory"]

S = IssueState
DONE, CRASH, FOREVER = Program(status=0), Program(status=1), Program()

Arrange = Callable[[Factory, Daemon], Awaitable[None]]
"""Brings AR-1 into a state, or to a moment of it, and keeps it there."""


def hang(factory, method):
    gate = trio.Event()
    factory.source.before = lambda called: gate if called == method else None


async def ready(factory, daemon):
    factory.put("AR-0", priority=1)
    factory.put("AR-9", priority=1)
    factory.script.parts |= {"ar-0-impl": [FOREVER], "ar-9-impl": [FOREVER]}
    await daemon.wait_runs("ar-0-impl", "ar-9-impl")
    factory.put("AR-1")
    await trio.sleep(1)
    assert daemon.state("AR-1") is None


async def claimed(factory, daemon):
    hang(factory, "claim")
    factory.put("AR-1")
    await daemon.wait_state("AR-1", S.CLAIMED)


async def running(factory, daemon):
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    await daemon.wait_runs(IMPL)


async def starting(factory, daemon):
    start = FakeTrees.start

    async def slowly(place, command):
        await trio.sleep(5)
        return await start(daemon.trees, place, command)

    daemon.trees.start = slowly
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    await daemon.wait_for(lambda: bool(factory.of_kind(RunStarting)))
    await trio.sleep(1)
    assert factory.script.started == []


async def resuming(factory, daemon):
    factory.script.parts[IMPL] = [CRASH, FOREVER]
    factory.put("AR-1")
    await daemon.wait_for(lambda: "run-emptied" in factory.story("AR-1"))
    await trio.sleep(0.5)


async def between_stages(factory, daemon):
    factory.script.parts[IMPL] = [Program(status=0, children=1, ignores_terminate=True)]
    factory.put("AR-1")
    await daemon.wait_for(lambda: "run-exited" in factory.story("AR-1"))
    await trio.sleep(1)
    assert factory.left() == [IMPL]


async def later_stage(factory, daemon):
    factory.script.parts[REVIEW] = [FOREVER]
    factory.put("AR-1")
    await daemon.wait_runs(REVIEW)


async def frozen(factory, daemon):
    await running(factory, daemon)
    await daemon.scheduler.freeze("AR-1", "a look")


async def cooldown(factory, daemon):
    factory.script.parts[IMPL] = [CRASH]
    factory.put("AR-1")
    await daemon.wait_state("AR-1", S.COOLDOWN)


async def stopping(factory, daemon):
    factory.script.parts[IMPL] = [Program(ignores_terminate=True)]
    factory.put("AR-1")
    await daemon.wait_runs(IMPL)
    await daemon.scheduler.kill(["AR-1"], "asked by a test", None)
    await trio.sleep(1)


async def done(factory, daemon):
    factory.script.parts[REVIEW] = [Program(status=0, after_s=10)]
    factory.put("AR-1")
    await daemon.wait_runs(REVIEW)
    factory.source.failure = "the folder is not mounted"
    await daemon.wait_state("AR-1", S.DONE)
    await trio.sleep(20)


async def done_and_the_source_hangs(factory, daemon):
    hang(factory, "write_outcome")
    factory.put("AR-1")
    await daemon.wait_state("AR-1", S.DONE)


async def parked(factory, daemon):
    hang(factory, "write_outcome")
    factory.script.parts[IMPL] = [CRASH]
    factory.put("AR-1")
    await daemon.wait_state("AR-1", S.PARKED)


async def cancelled(factory, daemon):
    hang(factory, "write_outcome")
    await cooldown(factory, daemon)
    await daemon.scheduler.kill(["AR-1"], "asked by a test", None)
    await daemon.wait_state("AR-1", S.CANCELLED)


async def escalated(factory, daemon):
    factory.put("AR-1", repo="nowhere")
    await daemon.wait_state("AR-1", S.ESCALATED)


MOMENTS: dict[Arrange, IssueState] = {
    ready: S.READY,
    claimed: S.CLAIMED,
    starting: S.RUNNING,
    running: S.RUNNING,
    resuming: S.RUNNING,
    between_stages: S.RUNNING,
    later_stage: S.RUNNING,
    frozen: S.RUNNING,
    cooldown: S.COOLDOWN,
    stopping: S.STOPPING,
    done: S.DONE,
    done_and_the_source_hangs: S.DONE,
    parked: S.PARKED,
    cancelled: S.CANCELLED,
    escalated: S.ESCALATED,
}
"""The ended ones are those whose outcome is not written back yet."""

AGENTS = {
    starting: IMPL,
    running: IMPL,
    resuming: IMPL,
    between_stages: IMPL,
    later_stage: REVIEW,
    frozen: IMPL,
    cooldown: IMPL,
    stopping: IMPL,
    done: REVIEW,
    done_and_the_source_hangs: IMPL,
    parked: IMPL,
    cancelled: IMPL,
}
"""An agent that has run, by whose name its issue can be killed."""


def test_no_state_of_an_issue_is_forgotten_here():
    assert set(MOMENTS.values()) == set(S)


def starts(factory):
    return [one.run for one in factory.of_kind(RunStarting) if one.issue == "AR-1"]


def targets():
    for arrange in MOMENTS:
        yield arrange, "AR-1"
        yield arrange, "ar-1"
        if arrange in AGENTS:
            yield arrange, AGENTS[arrange]


@pytest.mark.parametrize(
    ("arrange", "target"),
    [pytest.param(*one, id=f"{one[0].__name__}-{one[1]}") for one in targets()],
)
async def test_a_kill_ends_an_issue_as_cancelled_whatever_it_is_doing(
    autojump_clock, factory, arrange, target
):
    async with factory.daemon() as daemon:
        await arrange(factory, daemon)
        assert (daemon.state("AR-1") or S.READY) is MOMENTS[arrange]
        record = find_issue(daemon.ledger.registry, target)
        key = target if record is None else record.issue.key
        await daemon.scheduler.kill([key], "asked by a test", None)
        assert daemon.state("AR-1") in {S.STOPPING, S.CANCELLED}, "recorded when this returns"
        factory.source.before = lambda _: None
        factory.source.failure = None
        factory.source.touch()
        started = starts(factory)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        await trio.sleep(50_000)
        assert daemon.state("AR-1") is S.CANCELLED
        assert starts(factory) == started, "nothing is started any more"
        assert not any(agent.startswith("ar-1-") for agent in factory.left())
        record = daemon.record("AR-1")
        assert not record.attempt_open
        assert record.live_runs == ()
    assert not any("ar-1" in name for name in factory.store.held)
    assert len(factory.of_kind(IssueStopping)) == len(factory.of_kind(IssueCancelled)) == 1
    assert factory.story("AR-1").count("outcome-written") == 1
    (note,) = factory.source.outcomes["AR-1"]
    assert (note.state, note.reason) == (S.CANCELLED, "asked by a test")


async def test_a_ready_issue_that_many_kill_at_once_ends_once_and_nobody_sees_an_error(
    autojump_clock, factory
):
    async with factory.daemon() as daemon:
        await ready(factory, daemon)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(daemon.scheduler.kill, ["AR-1"], "asked by a test", None)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.state("AR-1") is S.CANCELLED
    assert factory.story("AR-1").count("issue-cancelled") == 1


@pytest.mark.parametrize("arrange", [arrange for arrange in MOMENTS if arrange is not ready])
async def test_a_kill_stands_when_the_daemon_dies_right_after_it(autojump_clock, factory, arrange):
    async with factory.daemon() as daemon:
        await arrange(factory, daemon)
        await daemon.scheduler.kill(["AR-1"], "asked by a test", None)
        factory.kill_daemon()
        factory.source.before = lambda _: None
        factory.source.failure = None
    factory.source.outcomes.clear()
    daemon = await factory.drain()
    assert daemon.state("AR-1") is S.CANCELLED
    assert daemon.record("AR-1").written
    assert factory.left() == []
    assert [one.state for one in factory.source.outcomes["AR-1"]] == [S.CANCELLED]


@pytest.mark.parametrize("state", sorted(TERMINAL))
async def test_an_issue_whose_outcome_is_written_back_has_ended_and_cannot_be_killed(
    autojump_clock, factory, state
):
    configure(factory, dispatch={"max_attempts": 1}, resume={"max_resumes": 0})
    part = {S.DONE: DONE, S.PARKED: CRASH, S.CANCELLED: FOREVER}[state]
    factory.script.parts[IMPL] = [part]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        if state is S.CANCELLED:
            await daemon.wait_runs(IMPL)
            await daemon.scheduler.kill(["AR-1"], "asked by a test", None)
        await daemon.wait_for(lambda: bool(factory.of_kind(OutcomeWritten)))
        with pytest.raises(FactoryError, match=f"AR-1 has ended already: it is {state}"):
            await daemon.scheduler.kill(["AR-1"], "asked by a test", None)
        assert daemon.state("AR-1") is state


async def test_a_write_back_that_is_only_slow_is_given_a_moment_by_a_kill(autojump_clock, factory):
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "write_outcome" else None
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.scheduler.kill, ["AR-1"], "asked by a test", None)
            await trio.sleep(PATIENCE_S / 2)
            gate.set()
        assert daemon.record("AR-1").written
        assert daemon.state("AR-1") is S.DONE
    assert [one.state for one in factory.source.outcomes["AR-1"]] == [S.DONE]


async def test_a_kill_of_all_reaches_also_what_only_waits_for_its_write_back(
    autojump_clock, factory
):
    replies = []

    async def say(reply, *, continues=False):
        replies.append(reply)

    def no_stop(reason, *, keep_agents):
        raise AssertionError

    async with factory.daemon() as daemon:
        await done(factory, daemon)
        factory.source.failure = None
        hang(factory, "write_outcome")
        factory.script.parts["ar-2-impl"] = [FOREVER]
        factory.put("AR-2")
        await daemon.wait_runs("ar-2-impl")
        steering = Steering(daemon.shop, daemon.scheduler, overview_of(daemon), no_stop)
        await steering.kill(KillCall(targets=(), all=True), say, more=False)
        assert daemon.state("AR-1") is daemon.state("AR-2") is S.CANCELLED
    (reply,) = replies
    assert sorted(reply.ended) == ["AR-1", "AR-2"]


async def test_a_kill_of_what_has_been_killed_is_answered_while_its_outcome_waits(
    autojump_clock, factory
):
    replies = []

    async def say(reply, *, continues=False):
        replies.append(reply)

    def no_stop(reason, *, keep_agents):
        raise AssertionError

    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        hang(factory, "write_outcome")
        steering = Steering(daemon.shop, daemon.scheduler, overview_of(daemon), no_stop)
        with trio.fail_after(60):
            for more in (False, False, True):
                await steering.kill(KillCall(targets=("AR-1",)), say, more=more)
        assert not daemon.record("AR-1").written
    assert [reply.ended for reply in replies] == [("AR-1",)] * 3
    assert [len(reply.agents) for reply in replies] == [1, 0, 0]


async def test_a_source_that_hangs_at_an_outcome_keeps_no_other_issue_from_being_killed(
    autojump_clock, factory
):
    await_killed = ["AR-1", "AR-2"]
    factory.script.parts["ar-2-impl"] = [FOREVER]
    hang(factory, "write_outcome")
    for key in await_killed:
        factory.put(key)
    async with factory.daemon() as daemon:
        await daemon.wait_runs("ar-2-impl")
        await daemon.wait_state("AR-1", S.DONE)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.scheduler.kill, await_killed, "asked by a test", None)
            await daemon.wait_state("AR-2", S.CANCELLED)
            assert trio.current_time() - began < 1
        assert daemon.state("AR-1") in {S.STOPPING, S.CANCELLED}
