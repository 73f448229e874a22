"""The live re-check right before the first spawn: what is no longer true starts nothing."""

import pytest
import trio
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.config import RouteConfig
from factoryd.core.errors import SourceFailed
from factoryd.core.events import AttemptStarted, IssueParked, IssueRerouted, RunStarting
from factoryd.core.model import IssueState
from factoryd.flow.slots import PATIENCE_S
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState


def at_the_claim(factory, act):
    """Do something just before an issue is claimed, once."""

    def before(method):
        if method == "claim":
            factory.source.before = lambda _: None
            act()

    factory.source.before = before


def assert_untouched(factory, daemon):
    assert factory.script.started == []
    assert factory.of_kind(RunStarting) == factory.of_kind(AttemptStarted) == []
    assert daemon.record("AR-1").attempts_used == 0
    assert daemon.ledger.registry.counters.dispatched == 0


async def test_an_issue_that_is_gone_starts_nothing_uses_no_attempt_and_says_so(
    autojump_clock, factory
):
    factory.put("AR-1")
    at_the_claim(factory, lambda: factory.source.take_away("AR-1"))
    daemon = await factory.drain()
    assert_untouched(factory, daemon)
    assert daemon.record("AR-1").reason == "it is gone from its source"


async def test_an_issue_that_left_the_scope_starts_nothing_uses_no_attempt_and_says_so(
    autojump_clock, factory
):
    shown = factory.put("AR-1")
    at_the_claim(factory, lambda: factory.source.ready.update({"AR-1": replace(shown, labels=())}))
    daemon = await factory.drain()
    assert_untouched(factory, daemon)
    assert "out of scope: it lacks the label" in str(daemon.record("AR-1").reason)


async def test_an_issue_that_is_no_longer_ready_starts_nothing(autojump_clock, factory):
    class Closed(FakeSource):
        """Another person has closed it: it can be neither claimed nor read."""

        @override
        async def claim(self, issue):
            raise SourceFailed(f"{issue.key} is closed")

        @override
        async def read(self, issue):
            return None

    closed = Closed()
    closed.put(factory.put("AR-1"))
    factory.source, factory.sources = closed, [closed]
    assert_untouched(factory, await factory.drain())


async def test_an_issue_that_changed_its_route_is_triaged_anew_before_anything_starts(
    autojump_clock, factory
):
    other = RouteConfig(label="other", repo="other", recipe="pair")
    config = factory.config
    configure(factory, repos={"other": config.repos["demo"]})
    factory.config = replace(factory.config, routes=(other, *config.routes))
    shown = factory.put("AR-1")
    labels = ("factory", "other")
    at_the_claim(
        factory, lambda: factory.source.ready.update({"AR-1": replace(shown, labels=labels)})
    )
    daemon = await factory.drain()
    (rerouted,) = factory.of_kind(IssueRerouted)
    assert (
        rerouted.reason
        == "it, or the configuration, changed before anything was started: route by label"
    )
    story = factory.story("AR-1")
    assert story.index("issue-rerouted") < story.index("attempt-started")
    assert [repo for _, repo in factory.workspaces.released] == ["other"]
    assert daemon.record("AR-1").issue.labels == labels
    assert daemon.record("AR-1").attempts_used == 1
    assert factory.script.started == [IMPL, REVIEW]


async def test_a_route_that_changed_while_the_workspace_was_made_gets_another_workspace(
    autojump_clock, factory
):
    configure(factory, repos={"other": factory.config.repos["demo"]})
    shown = factory.put("AR-1")
    prepare, asked = factory.workspaces.prepare, []

    async def slowly(issue, repo):
        asked.append(repo)
        if len(asked) == 1:
            await trio.sleep(60)
            factory.source.active["AR-1"] = replace(shown, repo="other")
        return await prepare(issue, repo)

    factory.workspaces.prepare = slowly
    await factory.drain()
    assert asked == ["demo", "other"]
    assert factory.workspaces.released == [("AR-1", "demo"), ("AR-1", "other")]
    assert factory.source.outcomes["AR-1"][0].state is S.DONE


async def test_an_issue_that_no_route_leads_anywhere_any_more_starts_nothing(
    autojump_clock, factory
):
    shown = factory.put("AR-1")
    at_the_claim(factory, lambda: factory.source.ready.update({"AR-1": replace(shown, repo="no")}))
    daemon = await factory.drain()
    assert_untouched(factory, daemon)
    (parked,) = factory.of_kind(IssueParked)
    assert parked.reason.startswith(
        "it, or the configuration, changed before anything was started: no route: "
    )


async def test_work_that_has_begun_keeps_the_route_it_began_on(autojump_clock, factory):
    configure(factory, repos={"other": factory.config.repos["demo"]}, resume={"max_resumes": 0})
    shown = factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1), Program(status=0)]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        factory.source.active["AR-1"] = replace(shown, repo="other")
        await daemon.wait_state("AR-1", S.DONE)
        assert daemon.record("AR-1").repo == "demo"
    assert factory.of_kind(IssueRerouted) == []


# ----------------------------------------------------------- a source that is slow, silent, away


class Silent(FakeSource):
    """Lists, and never answers a claim until it is let."""

    def __init__(self, name, after_s=float("inf")):
        super().__init__(name)
        self.after_s = after_s

    @override
    async def claim(self, issue):
        await trio.sleep(self.after_s)
        return await super().claim(issue)


async def test_issues_of_a_source_that_does_not_answer_keep_no_slot_from_others(
    autojump_clock, factory
):
    silent = Silent("silent")
    factory.sources.insert(0, silent)
    for n in range(5):
        silent.put(factory.put(f"AR-{n}", priority=1))
        factory.source.take_away(f"AR-{n}")
    factory.put("AR-9", priority=9)
    began = trio.current_time()
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-9", S.DONE)
        assert trio.current_time() - began < 5 * PATIENCE_S
        await daemon.scheduler.kill([f"AR-{n}" for n in range(5)], "asked", None)


async def test_an_answer_that_took_long_is_asked_for_again_once_there_is_a_slot(
    autojump_clock, factory
):
    slow = Silent("slow", PATIENCE_S + 1)
    slow.put(factory.put("AR-1"))
    factory.source, factory.sources = slow, [slow]
    daemon = await factory.drain()
    assert [name for name, _ in slow.calls if name == "claim"] == ["claim", "claim"]
    assert daemon.state("AR-1") is S.DONE
    assert daemon.shop.slots.free == 2


async def test_an_issue_whose_source_left_the_configuration_holds_no_slot_and_can_be_ended(
    autojump_clock, factory
):
    other = FakeSource("other")
    factory.sources.append(other)
    for key in ("AR-1", "AR-2"):
        other.put(factory.put(key))
        factory.source.take_away(key)
    gate = trio.Event()
    other.before = lambda method: gate if method == "claim" else None
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-2", S.CLAIMED)
        factory.kill_daemon()
    factory.sources.remove(other)
    factory.put("AR-9")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-9", S.DONE)
        await trio.sleep(100)
        assert daemon.shop.slots.free == 2
        assert daemon.state("AR-1") is S.CLAIMED
        assert "no longer has the source 'other'" in daemon.shop.troubles["ar-1"]
        await daemon.scheduler.kill(["AR-1", "AR-2"], "asked", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        assert not daemon.record("AR-1").written, "it is written back when the source is there"
    other.before = lambda _: None
    factory.sources.append(other)
    daemon = await factory.drain()
    assert daemon.record("AR-1").written
    assert factory.script.started == ["ar-9-impl", "ar-9-reviewer"]


@pytest.mark.parametrize("method", ["claim", "write_outcome"])
async def test_what_an_issue_waits_for_is_shown_while_it_waits(autojump_clock, factory, method):
    class Failing(FakeSource):
        fails = True

        async def _fail(self, name):
            if self.fails and name == method:
                raise SourceFailed("not mounted")

        @override
        async def claim(self, issue):
            await self._fail("claim")
            return await super().claim(issue)

        @override
        async def write_outcome(self, issue, note):
            await self._fail("write_outcome")
            await super().write_outcome(issue, note)

    failing = Failing()
    failing.put(factory.put("AR-1"))
    factory.source, factory.sources = failing, [failing]
    async with factory.daemon() as daemon:
        await trio.sleep(30)
        assert daemon.shop.troubles["ar-1"].endswith("not mounted")
        assert daemon.shop.slots.free == 2
        failing.fails = False
        await daemon.wait_for(lambda: (r := daemon.ledger.registry.issue("AR-1")) and r.written)
        assert daemon.shop.troubles == {}
