"""While the factory is paused nothing new is dispatched, and what runs goes on."""

import pytest
import trio

from factoryd.core.errors import IllegalFact
from factoryd.core.events import FactoryPaused, FactoryResumed
from factoryd.core.model import IssueState
from factoryd.core.policy import PAUSE_BLOCK, SLOT_BLOCK, hold_reason
from factoryd.core.registry import Draft, Registry
from factoryd.flow.preview import preview
from factoryd.flow.steering import Steering
from factoryd.wire.messages import PauseCall, ResumeCall
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.test_views import issue_in, overview_of

__all__ = ["factory"]

S = IssueState
CRASH, DONE = Program(status=1), Program(status=0)


def steering_of(daemon):
    def no_stop(reason, *, keep_agents):
        raise AssertionError

    return Steering(daemon.shop, daemon.scheduler, overview_of(daemon), no_stop)


async def pause(daemon, reason=None):
    return await steering_of(daemon).pause_or_resume(PauseCall(reason=reason))


async def resume(daemon):
    return await steering_of(daemon).pause_or_resume(ResumeCall())


def test_paused_comes_before_no_free_slot():
    assert PAUSE_BLOCK == "paused"
    assert hold_reason(paused=True, free_slots=0) == PAUSE_BLOCK
    assert hold_reason(paused=False, free_slots=0) == SLOT_BLOCK
    assert hold_reason(paused=False, free_slots=1) is None


def test_a_pause_survives_replay_and_snapshots_and_is_made_only_once():
    registry = Registry()
    draft = Draft(registry)
    with pytest.raises(IllegalFact):
        draft.add(FactoryResumed(), 1.0)
    draft.add(FactoryPaused(reason="lunch"), 1.0)
    with pytest.raises(IllegalFact):
        draft.add(FactoryPaused(reason="again"), 2.0)
    registry.accept(draft, 1)
    assert registry.paused == "lunch"
    assert Registry.replay(registry.snapshot(), []).paused == "lunch"
    draft = Draft(registry)
    draft.add(FactoryResumed(), 3.0)
    assert registry.paused == "lunch"
    registry.accept(draft, 2)
    assert registry.paused is None


async def test_nothing_new_is_dispatched_while_paused_and_what_runs_goes_on_to_its_end(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100.0)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        assert (await pause(daemon, "lunch\ttime")).reason == "lunch time"
        factory.put("AR-2")
        await daemon.wait_state("AR-1", S.DONE)
        await trio.sleep(1000)
        assert factory.script.started == [IMPL, REVIEW], "its later stages are no new dispatch"
        assert daemon.state("AR-2") is None
        status = await overview_of(daemon).status(())
        assert (status.daemon.paused, status.daemon.paused_reason) == (True, "lunch time")
        assert issue_in(status, "AR-2").reason == "paused"
        await resume(daemon)
        await daemon.wait_state("AR-2", S.DONE)


async def test_an_issue_that_cools_down_is_tried_again_only_after_the_pause(
    autojump_clock, factory
):
    configure(factory, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        await pause(daemon)
        await trio.sleep(1000)
        assert (daemon.state("AR-1"), factory.script.started) == (S.COOLDOWN, [IMPL])
        assert daemon.shop.slots.free == 2, "it takes no slot to wait with"
        await resume(daemon)
        await daemon.wait_state("AR-1", S.DONE)


async def test_an_issue_whose_claim_was_being_made_is_checked_again_after_the_pause(
    autojump_clock, factory
):
    gate = trio.Event()
    factory.put("AR-1")
    factory.source.before = lambda method: gate if method == "claim" else None
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        await pause(daemon)
        gate.set()
        await trio.sleep(1000)
        assert (daemon.state("AR-1"), factory.script.started) == (S.CLAIMED, [])
        factory.source.take_away("AR-1")
        await resume(daemon)
        await daemon.wait_state("AR-1", S.CANCELLED)
    assert factory.script.started == []


async def test_asked_for_what_is_so_it_changes_nothing(autojump_clock, factory):
    async with factory.daemon() as daemon:
        assert not (await resume(daemon)).changed
        first, again = await pause(daemon, "one"), await pause(daemon, "two")
        assert (first.changed, again.changed, again.reason) == (True, False, "one")
        assert (await resume(daemon)).changed
    assert len(factory.of_kind(FactoryPaused)) == len(factory.of_kind(FactoryResumed)) == 1


async def test_a_pause_outlives_the_daemon_and_the_dry_run_knows_it(autojump_clock, factory):
    async with factory.daemon() as daemon:
        await pause(daemon)
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await trio.sleep(1000)
        assert daemon.state("AR-1") is None
        (line,) = await preview(factory.sources, daemon.ledger.registry, factory.config, 0.0)
        assert line == "AR-1: would wait: paused"
        assert "paused" in overview_of(daemon).headline()


async def test_a_bounded_run_waits_for_the_end_of_the_pause(autojump_clock, factory):
    async with factory.daemon() as daemon:
        await pause(daemon)
    factory.put("AR-1")
    with trio.move_on_after(1000) as waiting:
        await factory.drain()
    assert waiting.cancelled_caught
    assert len([call for call in factory.source.calls if call[0] == "list_ready"]) < 200
