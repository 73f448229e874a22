"""`factoryd events` and `factoryd history`: answers from the ledger's file, which is only read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from factoryd.adapters.sqlite_store import SqliteStore, open_to_read, read_registry
from factoryd.flow.past import read_finished, read_issue, unknown
from factoryd.flow.views import fact_view, find_issue
from factoryd.wire.answers import FactView, HistoryReply, PastIssueView
from factoryd.wire.messages import HistoryCall
from factoryd.wire.paging import gather_issues

PAGE = 1000
"""Facts read at once: however slowly they are taken, nobody is kept from writing meanwhile."""

_MAX_SEQ = (1 << 63) - 1


def list_facts(state: Path, since: int, issue: str | None) -> Iterator[Sequence[FactView]]:
    """Yield the facts of a state directory's ledger numbered above `since`, in parts, oldest first.

    Those of one issue, or all. Raises `LedgerUnavailable` and `PermissionDenied`, as `list_past`.
    """
    with open_to_read(state) as store:
        facts = store.read_facts(max(0, min(since, _MAX_SEQ)), PAGE, issue)
        while facts:
            yield [fact_view(one) for one in facts]
            facts = store.read_facts(facts[-1].seq, PAGE, issue)


def list_past(state: Path, target: str | None, limit: int) -> list[PastIssueView]:
    """Return the newest finished issues, or all that one issue went through, newest first.

    A target is an issue's key or the name of one of its agents; raises `NoSuchTarget` for others.
    """
    with open_to_read(state) as store:
        key = None if target is None else _find_key(store, state, target)

        def ask(page: HistoryCall) -> HistoryReply:
            if key is None:
                return read_finished(store, page.before, page.limit)
            return read_issue(store, key, page.before, page.limit)

        return gather_issues(ask, key, limit)


def _find_key(store: SqliteStore, state: Path, target: str) -> str:
    if store.read_facts(0, 1, target):
        return target
    record = find_issue(read_registry(state), target)
    if record is None:
        raise unknown(target)
    return record.issue.key
