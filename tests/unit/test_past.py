"""Finished issues as callers see them, read from a store."""

import pytest

from factoryd.core.errors import NoSuchTarget
from factoryd.core.events import (
    Entry,
    IssueCancelled,
    IssueDone,
    IssueEscalated,
    IssueParked,
    IssueReopened,
    IssueStopping,
)
from factoryd.core.registry import Draft, Registry
from factoryd.flow import past
from factoryd.flow.looking import Looking
from factoryd.flow.past import read_finished, read_issue
from factoryd.wire.messages import HistoryCall
from tests.fakes.ledger_store import FakeStore
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, factory
from tests.unit.samples import (
    attempt_ended,
    attempt_started,
    claimed,
    handoff_made,
    issue,
    run_starting,
)
from tests.unit.test_views import overview_of

__all__ = ["factory"]


@pytest.fixture
def store():
    return FakeStore()


def put(store, *facts):
    """Add facts that the registry takes, too: such a story can happen."""
    draft = Draft(Registry.replay(*store.load()))
    store.append([draft.add(one, float(n)) for n, one in enumerate(facts)])


def done(key):
    return claimed(key), IssueDone(issue=key)


def again(key):
    return IssueReopened(issue=key, reason="it came back"), claimed(key)


def parked(key):
    return IssueParked(issue=key, reason="crashed")


def listed(reply):
    return [(one.key, one.outcome) for one in reply.issues]


def test_the_newest_come_first_and_each_end_counts(store):
    put(store, *done("A-1"), *done("A-2"), *again("A-1"), parked("A-1"), claimed("A-3"))
    everything = [("A-1", "parked"), ("A-2", "done"), ("A-1", "done")]
    assert listed(read_finished(store, None, 10)) == everything
    assert listed(read_finished(store, None, 1)) == everything[:1]
    assert listed(read_finished(store, None, 2)) == everything[:2]


def test_a_listing_goes_on_below_the_last_one(store):
    for number in range(7):
        put(store, *done(f"A-{number}"))
    put(store, *again("A-1"), parked("A-1"))
    seen, before = [], None
    while page := read_finished(store, before, 3).issues:
        seen += [one.key for one in page]
        before = page[-1].seq
    assert seen == ["A-1", *(f"A-{number}" for number in reversed(range(7)))]


def test_withdrawn_ends_take_no_place(store):
    put(store, *done("A-1"))
    for key in ("A-2", "A-3", "A-4"):
        stopping = IssueStopping(issue=key, reason="enough", withdraws=True)
        put(store, *done(key), stopping, IssueCancelled(issue=key, reason="enough"))
    put(store, *done("A-5"), IssueStopping(issue="A-5", reason="enough", withdraws=True))
    assert listed(read_finished(store, None, 4)) == [
        *((key, "cancelled") for key in ("A-4", "A-3", "A-2")),
        ("A-1", "done"),
    ]


def test_an_answer_has_at_most_so_many_issues_and_at_least_one_is_asked_for(store, monkeypatch):
    monkeypatch.setattr(past, "MAX_ISSUES", 2)
    for number in range(4):
        put(store, *done(f"A-{number}"))
    assert len(read_finished(store, None, 10).issues) == 2
    assert len(read_finished(store, None, -1).issues) == 1
    for odd in (-(1 << 70), 0, 1):
        assert read_finished(store, odd, 10).issues == ()
    assert len(read_finished(store, 1 << 70, 10).issues) == 2


def test_one_issue_is_told_whole_newest_first_by_any_spelling(store):
    put(store, claimed("A-1"), attempt_started("A-1"), run_starting(key="A-1"))
    put(store, handoff_made(key="A-1"), attempt_ended("A-1"), parked("A-1"), *again("A-1"))
    first = read_issue(store, "a-1", None, 10)
    assert [one.outcome for one in first.issues] == [None, "parked"]
    (run,) = first.issues[1].attempts[0].runs
    assert (run.result, run.survivors, run.emptied, run.cpu_s) == ("stopped", 1, False, None)
    assert [one.kind for one in first.issues[1].ending] == ["issue-parked", "issue-reopened"]
    assert read_issue(store, "A-1", None, 1).issues == first.issues[:1]
    assert read_issue(store, "A-1", 99, 9).issues == first.issues[1:], "an end, below that"


def test_an_escalated_issue_is_told_when_asked_for_and_is_not_listed(store):
    put(store, IssueEscalated(issue="A-1", work=issue("A-1"), reason="no route"))
    assert listed(read_issue(store, "A-1", None, 10)) == [("A-1", "escalated")]
    assert read_finished(store, None, 10).issues == ()


def test_a_story_of_many_facts_is_read_to_its_end(store, monkeypatch):
    monkeypatch.setattr(past, "_PAGE", 3)
    put(store, *done("A-1"), *again("A-1"), parked("A-1"), *again("A-1"), IssueDone(issue="A-1"))
    assert [one.outcome for one in read_issue(store, "A-1", None, 9).issues] == [
        "done",
        "parked",
        "done",
    ]


def test_a_snapshot_takes_nothing_from_the_history_and_the_end_of_retention_does(store):
    put(store, *done("A-1"), *done("A-2"), *again("A-1"), parked("A-1"))
    registry = Registry.replay(*store.load())
    store.save_snapshot(8, registry.snapshot())
    assert len(read_issue(store, "A-1", None, 10).issues) == 2
    store.forget(["a-1"], 8, 0.0)
    assert listed(read_finished(store, None, 10)) == [("A-2", "done")]
    with pytest.raises(NoSuchTarget, match="or that is forgotten"):
        read_issue(store, "A-1", None, 10)


def test_an_issue_of_which_there_is_nothing_is_none(store):
    store.append([Entry(at=1.0, fact=claimed("A-1"))])
    for key in ("A-2", ""):
        with pytest.raises(NoSuchTarget, match="no such issue in the ledger"):
            read_issue(store, key, None, 10)


async def test_a_daemon_tells_the_history_of_a_running_agents_issue(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program()]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        looking = Looking(daemon.shop, daemon.scheduler, overview_of(daemon))
        reply = await looking.history(HistoryCall(target=IMPL))
        assert listed(reply) == [("AR-1", None)]
        with pytest.raises(NoSuchTarget):
            await looking.history(HistoryCall(target="AR-9"))
        assert (await looking.history(HistoryCall())).issues == ()
