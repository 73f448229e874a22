"""Which finished issues may be forgotten, and forgetting them."""

from typing import Any

from factoryd.core.config import Config, HistoryConfig
from factoryd.core.model import IssueState
from factoryd.core.records import HandoffRecord, IssueRecord
from factoryd.core.registry import Registry
from factoryd.core.retention import choose_forgettable
from factoryd.flow.ledger import Ledger
from factoryd.flow.retention import Retention
from factoryd.flow.settings import Settings
from tests.fakes.clock import StillClock
from tests.fakes.desk import FakeDesk
from tests.fakes.ledger_store import FakeStore
from tests.unit.samples import issue, place

HOUR = 3600.0
KEEP = HistoryConfig(keep=HOUR, max_issues=3)


def registry(*records):
    known = Registry()
    known.issues = {record.issue.key.casefold(): record for record in records}
    return known


def finished(key, since, **fields):
    usual: dict[str, Any] = {"state": IssueState.DONE, "written": True, "left_ready": True}
    return IssueRecord(issue=issue(key), since=since, **(usual | fields))


def test_an_issue_is_kept_for_its_time_and_not_longer():
    known = registry(finished("OLD", 0.0), finished("NEW", 1.0))
    assert choose_forgettable(known, KEEP, HOUR) == []
    assert choose_forgettable(known, KEEP, HOUR + 0.5) == ["OLD"]
    assert choose_forgettable(known, KEEP, HOUR + 1.5) == ["OLD", "NEW"]


def test_of_too_many_issues_the_oldest_go():
    known = registry(*[finished(f"AR-{n}", float(n)) for n in (4, 2, 5, 1, 3)])
    assert choose_forgettable(known, KEEP, 10.0) == ["AR-1", "AR-2"]


def test_an_issue_that_would_be_missed_is_never_forgotten():
    known = registry(
        finished("UNWRITTEN", 0.0, written=False),
        finished("LISTED", 0.0, left_ready=False),
        finished("OWED", 0.0),
        *[finished(state, 0.0, state=state) for state in ("claimed", "running", "cooldown")],
        finished("stopping", 0.0, state=IssueState.STOPPING),
    )
    where = place(key="owed")
    known.handoffs["r"] = HandoffRecord(place=where, identity=None, reason="D state", since=0.0)
    assert choose_forgettable(known, KEEP, 1000 * HOUR) == []


def test_what_nobody_ever_worked_on_and_no_source_shows_is_forgotten_too():
    known = registry(
        finished("ESCALATED", 0.0, state=IssueState.ESCALATED, written=False),
        finished("REOPENED", 0.0, state=IssueState.READY, written=False),
        finished("SHOWN", 0.0, state=IssueState.ESCALATED, written=False, left_ready=False),
    )
    assert choose_forgettable(known, KEEP, 2 * HOUR) == ["ESCALATED", "REOPENED"]


async def test_a_forgotten_issue_leaves_nothing_behind_and_the_others_stay():
    known = registry(finished("OLD", 0.0), finished("NEW", 2 * HOUR))
    known.seq = 9
    store, desk = FakeStore(), FakeDesk()
    desk.write_issue(issue("OLD", body="old"))
    desk.write_issue(issue("NEW", body="new"))
    ledger = Ledger(store, known, StillClock())
    await Retention(Settings(Config(history=KEEP)), ledger, desk, StillClock(2 * HOUR)).forget_old()
    assert list(ledger.registry.issues) == ["new"]
    assert list(desk.issues) == ["NEW"]
    assert list(Registry.replay(*store.load()).issues) == ["new"]
