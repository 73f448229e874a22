"""Attempt gating: why an issue may not be dispatched, and when it may again."""

import pytest
import trio
from msgspec.structs import replace

from factoryd.core.config import DispatchConfig
from factoryd.core.events import IssueParked, IssueReopened, OutcomeWritten
from factoryd.core.model import IssueState
from factoryd.core.policy import (
    BACKOFF_BLOCK,
    IN_FLIGHT_BLOCK,
    LIMIT_BLOCK,
    SLOT_BLOCK,
    TERMINAL_BLOCK,
    Reopen,
    Skip,
    block_reason,
    cooldown_s,
    decide,
)
from factoryd.core.records import IssueRecord
from factoryd.core.registry import Draft, Registry
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.configs import SMALL, parse
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import attempt_ended, attempt_started, claimed, issue

__all__ = ["factory"]

S = IssueState


def test_the_reasons_are_these_strings():
    assert (TERMINAL_BLOCK, IN_FLIGHT_BLOCK, BACKOFF_BLOCK, LIMIT_BLOCK, SLOT_BLOCK) == (
        "dispatch already terminal",
        "dispatch already in-flight",
        "dispatch backoff active",
        "dispatch retry limit reached",
        "no free slot",
    )


def test_of_several_reasons_the_first_in_order_is_told():
    known = IssueRecord(issue=issue(), state=S.DONE, since=0.0, not_before=99.0, attempts_used=9)
    outside, lost = issue(labels=()), issue(repo="nope")
    config = parse(SMALL)
    told = [
        block_reason(replace(known, state=S.PARKED), 1.0, 2),
        block_reason(replace(known, state=S.RUNNING), 1.0, 2),
        block_reason(replace(known, state=S.COOLDOWN), 1.0, 2),
        block_reason(replace(known, state=S.COOLDOWN), 99.0, 2),
        decide(replace(outside, repo="nope"), None, config, 1.0),
        decide(lost, None, config, 1.0),
    ]
    starts = [one if isinstance(one, str) else getattr(one, "reason", "") for one in told]
    assert [one.split(":")[0] for one in starts if one] == [
        TERMINAL_BLOCK,
        IN_FLIGHT_BLOCK,
        BACKOFF_BLOCK,
        LIMIT_BLOCK,
        "out of scope",
        "no route",
    ]


def test_with_a_cooldown_of_a_second_it_is_allowed_at_0_blocked_at_999_allowed_at_1000_then_terminal():
    dispatch = DispatchConfig(max_attempts=2, error_cooldown=1.0)
    registry = Registry()

    def happens(*facts, ms):
        draft = Draft(registry)
        for fact in facts:
            draft.add(fact, ms / 1000)
        registry.accept(draft, registry.seq + len(facts))

    def blocked(ms):
        return block_reason(registry.issue("AR-1"), ms / 1000, dispatch.max_attempts)

    assert blocked(0) is None
    happens(claimed(), attempt_started(), ms=0)
    happens(attempt_ended(not_before=cooldown_s(1, dispatch, 0.0)), ms=0)
    assert blocked(999) == "dispatch backoff active"
    assert blocked(1000) is None
    happens(attempt_started(attempt=2), ms=1000)
    happens(attempt_ended(attempt=2), IssueParked(issue="AR-1", reason="spent"), ms=1000)
    assert blocked(1000) == blocked(1_000_000) == "dispatch already terminal"


@pytest.mark.parametrize("key", ["AR-1", "ar-1", "Ar-1"])
async def test_one_key_under_two_paths_and_from_two_sources_is_one_issue(
    autojump_clock, factory, key
):
    other = FakeSource("other")
    factory.sources.append(other)
    shown = factory.put("AR-1")
    other.put(replace(shown, key=key, ref="elsewhere.md"))
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(1000)
    assert factory.script.started == [IMPL, REVIEW]
    assert other.outcomes == {}


async def test_an_ended_issue_that_leaves_ready_and_comes_back_is_new_work_with_all_its_attempts(
    autojump_clock, factory
):
    shown = factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1)] * 4 + [Program(status=0)]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        assert daemon.state("AR-1") is S.PARKED
        factory.source.put(shown)
        await daemon.wait_for(lambda: len(factory.source.outcomes["AR-1"]) == 2)
    second = factory.source.outcomes["AR-1"][1]
    assert (second.state, second.attempts) == (S.DONE, 1)


async def test_a_stale_copy_of_an_ended_issue_is_not_new_work(autojump_clock, factory):
    """A second file of the key, which was there while the first was worked on."""
    shown = factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "list_ready" else None
    async with factory.daemon() as daemon:
        gate.set()
        await daemon.wait_state("AR-1", S.CLAIMED)
        await trio.lowlevel.checkpoint()
        while "AR-1" not in factory.source.active:
            await trio.lowlevel.checkpoint()
        factory.source.put(shown)
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(1000)
        assert daemon.state("AR-1") is S.DONE
        assert daemon.scheduler.decide(shown) == Skip(issue=shown, reason=TERMINAL_BLOCK)
        factory.source.take_away("AR-1")
        await trio.sleep(100)
        factory.source.put(shown)
        await daemon.wait_for(lambda: len(factory.source.outcomes["AR-1"]) == 2)
    assert factory.story("AR-1").count("issue-reopened") == 1


def test_an_ended_issue_is_not_new_work_before_its_outcome_is_settled():
    registry, config = Registry(), parse(SMALL)
    draft = Draft(registry)
    for fact in (
        claimed(),
        attempt_started(),
        attempt_ended(),
        IssueParked(issue="AR-1", reason="spent"),
    ):
        draft.add(fact, 0.0)
    registry.accept(draft, 4)
    left = replace(registry.issues["ar-1"], left_ready=True)
    assert decide(issue(), left, config, 0.0) == Skip(issue=issue(), reason=TERMINAL_BLOCK)
    registry.issues["ar-1"] = left
    draft = Draft(registry)
    draft.add(OutcomeWritten(issue="AR-1", outcome=S.PARKED), 0.0)
    registry.accept(draft, 5)
    assert isinstance(decide(issue(), registry.issue("AR-1"), config, 0.0), Reopen)


async def test_a_ready_issue_that_is_killed_was_never_dispatched(autojump_clock, factory):
    configure(factory, daemon={"slots": 1})
    factory.put("AR-1", priority=1)
    factory.put("AR-2")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-2"], "asked", None)
        await daemon.wait_for(lambda: daemon.record("AR-2").written)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.ledger.registry.counters.dispatched == 1
    assert factory.of_kind(IssueReopened) == []
