"""What people may ask of an issue in which state; what they may not is refused in words."""

from collections.abc import Sequence

from factoryd.core.errors import FactoryError, NoSuchTarget
from factoryd.core.lifecycle import IN_FLIGHT, STOPPABLE, TERMINAL
from factoryd.core.model import Data, Issue, IssueState
from factoryd.core.records import IssueRecord, same_issue


class Named(Data, frozen=True, kw_only=True):
    """An issue that a person has named: what is known of it, and as what it is shown ready."""

    key: str
    record: IssueRecord | None
    shown: Issue | None


def look_up(key: str, record: IssueRecord | None, ready: Sequence[Issue]) -> Named:
    """Return the issue of a key; raise `NoSuchTarget` when nothing is known of it or shown."""
    folded = same_issue(key)
    shown = next((one for one in ready if same_issue(one.key) == folded), None)
    if record is None and shown is None:
        raise _unknown(key)
    return Named(key=key, record=record, shown=shown)


def must_be_killable(named: Named) -> Issue | None:
    """Return the issue to be claimed and ended; None for one that is being dealt with already.

    Raises `NoSuchTarget` for one that is nowhere any more and `FactoryError` for one that has ended
    and whose outcome is written back.
    """
    key, record = named.key, named.record
    if record is not None and record.state in IN_FLIGHT:
        return None
    if record is not None and record.state in TERMINAL:
        if not record.written:
            return None
        raise FactoryError(f"{key} has ended already: it is {record.state}")
    if named.shown is None:
        raise _unknown(key)
    return named.shown


def is_unfinished(record: IssueRecord) -> bool:
    """Say whether an issue is in flight, or how it ended is still to be written back."""
    return record.state in IN_FLIGHT or (record.state in TERMINAL and not record.written)


def may_withdraw(record: IssueRecord, outcome: IssueState) -> bool:
    """Say whether an issue that has ended may still be asked to end as something else.

    Not once that is written back; and what a person killed stays killed.
    """
    ended = record.state in TERMINAL - {IssueState.CANCELLED, outcome}
    return ended and not record.written


def must_be_under_way(named: Named) -> str:
    """Return an issue's key as the ledger spells it, if it may be frozen or thawed."""
    key, record = named.key, named.record
    if record is None:
        raise FactoryError(f"{key} is not under way: it waits to be claimed")
    if record.state in TERMINAL:
        raise FactoryError(f"{key} has ended already: it is {record.state}")
    if record.state not in STOPPABLE:
        raise FactoryError(f"{key} is not under way: it is {record.state}")
    return record.issue.key


def must_be_retriable(named: Named) -> IssueRecord:
    """Return what is known of an issue that may begin anew: one that has ended, or escalated."""
    key, record = named.key, named.record
    if record is None or record.state is IssueState.READY:
        raise FactoryError(
            f"{key} waits already, with all its attempts: `factoryctl explain {key}` says for what"
        )
    if record.state in IN_FLIGHT:
        raise FactoryError(f"{key} is under way: it is {record.state}; kill it first")
    return record


def _unknown(key: str) -> NoSuchTarget:
    return NoSuchTarget(f"{key}: no such issue")
