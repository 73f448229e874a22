"""An ended issue begins anew when a person says so, with all its attempts and their reason."""

import pytest
import trio

from factoryd.core.errors import FactoryError, NoSuchTarget, SourceFailed
from factoryd.core.events import IssueReopened
from factoryd.core.model import IssueState
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, configure, factory

__all__ = ["factory"]

S = IssueState
CRASH, DONE, FOREVER = Program(status=1), Program(status=0), Program()


async def end(daemon, key, state):
    await daemon.wait_state(key, state)
    await daemon.wait_for(lambda: daemon.record(key).written)


async def test_a_parked_issue_gets_all_its_attempts_again(autojump_clock, factory):
    configure(factory, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, CRASH, CRASH, DONE]
    async with factory.daemon() as daemon:
        await end(daemon, "AR-1", S.PARKED)
        await daemon.scheduler.retry("AR-1", "mended")
        await end(daemon, "AR-1", S.DONE)
        assert daemon.record("AR-1").attempt == 2
    (reopened,) = factory.of_kind(IssueReopened)
    assert (reopened.issue, reopened.reason) == ("AR-1", "mended")
    assert [note.state for note in factory.source.outcomes["AR-1"]] == [S.PARKED, S.DONE]


async def test_a_killed_issue_comes_back_by_a_retry_that_follows_at_once(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "enough", 0.0)
        await daemon.wait_state("AR-1", S.CANCELLED)
        await daemon.scheduler.retry("AR-1", "after all")
        await end(daemon, "AR-1", S.DONE)


async def test_an_escalated_issue_is_triaged_anew(autojump_clock, factory):
    factory.put("AR-1", repo="nope")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.ESCALATED)
        await daemon.scheduler.retry("AR-1", "look again")
        await daemon.wait_state("AR-1", S.ESCALATED)
    kinds = factory.story("AR-1")
    assert [kind for kind in kinds if kind != "issue-left-ready"] == [
        "issue-escalated",
        "issue-reopened",
        "issue-escalated",
    ]


async def test_a_daemon_that_dies_between_its_source_and_the_fact_has_reopened_it(
    autojump_clock, factory
):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await end(daemon, "AR-1", S.DONE)
        await daemon.wait_for(lambda: daemon.record("AR-1").left_ready)
        issue = daemon.record("AR-1").issue
    await factory.source.reopen(issue)
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: len(factory.source.outcomes["AR-1"]) == 2)
        await end(daemon, "AR-1", S.DONE)


async def test_a_listing_that_sees_it_before_the_fact_does_not_bring_it_back_twice(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await end(daemon, "AR-1", S.DONE)
        await daemon.wait_for(lambda: daemon.record("AR-1").left_ready)
        reopen = factory.source.reopen

        async def slow(issue):
            await reopen(issue)
            await trio.sleep(100)

        monkeypatch.setattr(factory.source, "reopen", slow)
        await daemon.scheduler.retry("AR-1", "mended")
        await daemon.wait_for(lambda: len(factory.source.outcomes["AR-1"]) == 2)
        await trio.sleep(1000)
    assert [one.reason for one in factory.of_kind(IssueReopened)] == ["mended"]
    assert factory.script.started.count(IMPL) == 2


@pytest.mark.parametrize("state", [None, S.RUNNING])
async def test_what_has_not_ended_cannot_be_retried(autojump_clock, factory, state):
    configure(factory, daemon={"slots": 1})
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1", priority=1)
    factory.put("AR-2")
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        with pytest.raises(FactoryError, match="under way" if state else "waits already"):
            await daemon.scheduler.retry("AR-1" if state else "AR-2", "why not")
        with pytest.raises(NoSuchTarget):
            await daemon.scheduler.retry("Z-9", "why not")
    assert factory.of_kind(IssueReopened) == []


async def test_an_issue_whose_file_is_gone_or_whose_end_is_not_written_stays_ended(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=10.0)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.source.failure = "broken"
        await daemon.wait_state("AR-1", S.DONE)
        with pytest.raises(FactoryError, match=r"cannot begin anew yet: .*broken: try again"):
            await daemon.scheduler.retry("AR-1", "again")
        factory.source.failure = None
        await end(daemon, "AR-1", S.DONE)
        factory.source.take_away("AR-1")
        with pytest.raises(SourceFailed):
            await daemon.scheduler.retry("AR-1", "again")
        assert daemon.state("AR-1") is S.DONE
