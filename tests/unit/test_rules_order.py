"""Order and fairness: who is next, and that nobody has to wait for one that is broken or slow."""

import itertools

import pytest
import trio
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.errors import SourceFailed
from factoryd.core.events import IssueClaimed
from factoryd.core.model import IssueState
from factoryd.core.policy import in_order
from factoryd.flow.ledger import Ledger
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import issue

__all__ = ["factory"]

S = IssueState
CRASH = Program(status=1)


def claims(factory):
    return [one.issue for one in factory.of_kind(IssueClaimed)]


def test_priority_then_age_then_key():
    waiting = [
        issue("C", priority=2, since=1.0),
        issue("A", since=1.0),
        issue("B", since=1.0),
        issue("D", priority=1, since=9.0),
        issue("E", since=0.5),
    ]
    for shuffled in itertools.permutations(waiting):
        assert [one.key for one in in_order(shuffled)] == ["D", "C", "E", "A", "B"]


async def test_an_issue_that_fails_again_and_again_lets_the_others_pass(autojump_clock, factory):
    configure(factory, daemon={"slots": 1}, dispatch={"max_attempts": 20})
    factory.put("AR-1", priority=1)
    factory.script.parts[IMPL] = [CRASH]
    others = [f"AR-{n}" for n in range(2, 8)]
    for key in others:
        factory.put(key, priority=9)
    began = trio.current_time()
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: set(others) <= set(factory.source.outcomes))
        assert trio.current_time() - began < 60, "while the first cools down"
        assert daemon.state("AR-1") is S.COOLDOWN


async def test_a_poison_issue_costs_no_other_and_is_left_alone_until_it_changes(
    autojump_clock, factory, monkeypatch, caplog
):
    record = Ledger.record

    async def poisoned(self, *facts):
        if any(isinstance(fact, IssueClaimed) and "poison" in fact.work.title for fact in facts):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        await record(self, *facts)

    monkeypatch.setattr(Ledger, "record", poisoned)
    shown = factory.put("AR-1", priority=1, title="poison")
    factory.put("AR-2", priority=2)
    factory.put("AR-3", priority=3)
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-2", S.DONE)
        await daemon.wait_state("AR-3", S.DONE)
        assert "an error inside factoryd: UnicodeEncodeError" in str(
            daemon.scheduler.decide(factory.source.ready["AR-1"])
        )
        await trio.sleep(1000)
        assert caplog.text.count("AR-1: an error inside factoryd; left alone") == 1
        assert daemon.shop.slots.free == 2
        factory.source.put(replace(shown, title="mended"))
        await daemon.wait_state("AR-1", S.DONE)


async def test_a_source_that_hangs_costs_the_others_nothing(autojump_clock, factory):
    slow = FakeSource("slow")
    slow.before = lambda _: trio.Event()
    factory.sources.insert(0, slow)
    factory.put("AR-1")
    began = trio.current_time()
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        assert trio.current_time() - began < 1
        assert factory.script.started == [IMPL, REVIEW]


async def test_each_source_has_its_own_pulse_and_only_the_one_that_hangs_is_late(
    autojump_clock, factory
):
    slow = FakeSource("slow")
    slow.before = lambda _: trio.Event()
    factory.sources.append(slow)
    async with factory.daemon() as daemon:
        await trio.sleep(100)
        pulses = [one.pulse.read() for one in daemon.scheduler.followers]
        assert {one.name: one.late for one in pulses} == {
            "source fake": False,
            "source slow": True,
        }


async def test_a_slot_that_is_given_back_is_used_at_once(autojump_clock, factory):
    configure(factory, daemon={"slots": 1}, resume={"max_resumes": 0})
    factory.put("AR-1", priority=1)
    factory.put("AR-2")
    factory.script.parts[IMPL] = [Program(status=1, after_s=10)]
    began = trio.current_time()
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-2", S.RUNNING)
        assert trio.current_time() - began == pytest.approx(10, abs=1)


async def test_a_write_back_that_fails_is_tried_again_with_growing_waits_and_keeps_the_claim(
    autojump_clock, factory
):
    tries = list[float]()

    class ReadOnly(FakeSource):
        @override
        async def write_outcome(self, issue, note):
            tries.append(trio.current_time())
            if len(tries) < 6:
                raise SourceFailed("read-only")
            await super().write_outcome(issue, note)

    source = ReadOnly()
    source.put(factory.put("AR-1"))
    factory.source, factory.sources = source, [source]
    async with factory.daemon() as daemon:
        await trio.sleep(10)
        assert "AR-1" in source.active
        assert daemon.shop.troubles["ar-1"].startswith("its outcome is not written back yet: ")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
    waits = [b - a for a, b in itertools.pairwise(tries)]
    assert waits == pytest.approx([1, 2, 5, 15, 60], abs=0.1)
    assert factory.script.started == [IMPL, REVIEW]
