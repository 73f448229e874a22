"""`history` where a daemon answers: issues, page by page."""

from argparse import Namespace

from factoryctl.client import Connection
from factoryctl.output import answer
from factoryctl.typed import call
from factoryd.wire.answers import HistoryReply
from factoryd.wire.messages import HistoryCall
from factoryd.wire.paging import gather_issues
from factoryd.wire.retelling import retell


def show(connection: Connection, options: Namespace) -> int:
    """Show as many issues as asked for."""

    def ask(page: HistoryCall) -> HistoryReply:
        return call(connection, "History", page, HistoryReply)

    issues = gather_issues(ask, options.issue, options.limit)
    lines = retell(issues, whole=options.issue is not None, as_json=options.json)
    if lines:
        answer("\n".join(lines))
    return 0
