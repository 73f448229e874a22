"""A long answer, asked for in parts."""

from collections.abc import Callable

from factoryd.wire.answers import HistoryReply, PastIssueView
from factoryd.wire.messages import HistoryCall

ISSUES_PER_PAGE = 100


def gather_issues(
    ask: Callable[[HistoryCall], HistoryReply], target: str | None, limit: int
) -> list[PastIssueView]:
    """Return the newest `limit` issues that `ask` tells of, page by page; errors are those of `ask`."""
    issues: list[PastIssueView] = []
    before: int | None = None
    while len(issues) < limit:
        wanted = min(ISSUES_PER_PAGE, limit - len(issues))
        page = ask(HistoryCall(target=target, before=before, limit=wanted)).issues
        issues += page
        if len(page) < wanted or page[-1].seq is None:
            break
        before = page[-1].seq
    return issues
