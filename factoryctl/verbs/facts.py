"""`events` where a daemon answers: facts, page by page or as they happen."""

from argparse import Namespace

from factoryctl.client import Connection
from factoryctl.output import answer
from factoryctl.typed import call, read, stream
from factoryd.wire.answers import EventsReply
from factoryd.wire.messages import EventsCall
from factoryd.wire.retelling import encode_lines, plain_facts

PAGE = 1000
"""Facts asked for at once."""


def show(connection: Connection, options: Namespace) -> int:
    """Show the facts after `since`; with `follow` go on until interrupted."""
    if options.follow:
        wanted = _wanted(options, options.since)
        for reply in stream(connection, "Events", wanted):
            if reply is not None:
                _show(read(reply, EventsReply), as_json=options.json)
        return 0
    since = options.since
    while True:
        page = call(connection, "Events", _wanted(options, since), EventsReply)
        _show(page, as_json=options.json)
        if len(page.facts) < PAGE:
            return 0
        since = page.facts[-1].seq


def _wanted(options: Namespace, since: int) -> EventsCall:
    return EventsCall(since=since, limit=PAGE, issue=options.issue, follow=options.follow)


def _show(events: EventsReply, *, as_json: bool) -> None:
    lines = encode_lines(events.facts) if as_json else plain_facts(events.facts)
    if lines:
        answer("\n".join(lines))
