"""`history`: finished issues, or all that one issue went through."""

from argparse import Namespace

from factoryctl.client import Connection, connect
from factoryctl.output import answer
from factoryctl.typed import call
from factoryd.wire.answers import HistoryReply, PastIssueView
from factoryd.wire.messages import HistoryCall
from factoryd.wire.retelling import encode_lines, plain_history, plain_issue

PAGE = 100
"""Issues asked for at once."""


def run(options: Namespace) -> int:
    """Show issues, newest first."""
    with connect(options.sockets) as connection:
        issues = _ask(connection, options.issue, options.limit)
    if options.json:
        lines = encode_lines(issues)
    elif options.issue is None:
        lines = plain_history(issues)
    else:
        lines = [line for issue in issues for line in plain_issue(issue)]
    if lines:
        answer("\n".join(lines))
    return 0


def _ask(connection: Connection, target: str | None, limit: int) -> list[PastIssueView]:
    issues: list[PastIssueView] = []
    before: int | None = None
    while len(issues) < limit:
        wanted = min(PAGE, limit - len(issues))
        parameters = HistoryCall(target=target, before=before, limit=wanted)
        page = call(connection, "History", parameters, HistoryReply).issues
        issues += page
        if len(page) < wanted or page[-1].seq is None:
            break
        before = page[-1].seq
    return issues
