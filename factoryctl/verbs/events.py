"""`events`: the facts of the ledger, up to now or as they happen."""

from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.output import answer
from factoryctl.typed import call, read, stream
from factoryd.wire.answers import EventsReply, FactView
from factoryd.wire.messages import EventsCall
from factoryd.wire.retelling import plain_fact

PAGE = 1000
"""Facts asked for at once."""


def run(options: Namespace) -> int:
    """Show the facts after `since`; with `follow` go on until interrupted."""
    with connect(options.sockets) as connection:
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
    line = _json if as_json else plain_fact
    if events.facts:
        answer("\n".join(map(line, events.facts)))


def _json(fact: FactView) -> str:
    return msgspec.json.encode(fact).decode()
