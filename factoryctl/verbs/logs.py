"""`logs`: an agent's output, up to now or as it comes."""

from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.output import answer, is_terminal, printable
from factoryctl.typed import call, read, stream
from factoryd.wire.answers import LogsReply
from factoryd.wire.messages import LogsCall


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` says of a line of output."""

    agent: str
    run: str
    offset: int
    text: str


def run(options: Namespace) -> int:
    """Show the last lines of a run; with `follow` go on until it ends."""
    parameters = LogsCall(
        target=options.target, run=options.run_id, lines=options.lines, follow=options.follow
    )
    with connect(options.sockets) as connection:
        if not options.follow:
            _show(call(connection, "Logs", parameters, LogsReply), as_json=options.json)
            return 0
        for reply in stream(connection, "Logs", parameters, at_once=True):
            if reply is not None:
                _show(read(reply, LogsReply), as_json=options.json)
    return 0


def _show(logs: LogsReply, *, as_json: bool) -> None:
    if not logs.lines:
        return
    if as_json:
        encode = msgspec.json.encode
        lines = [
            encode(_Line(agent=logs.agent, run=logs.run, offset=one.offset, text=one.text)).decode()
            for one in logs.lines
        ]
    elif is_terminal():
        lines = [printable(one.text) for one in logs.lines]
    else:
        lines = [one.text for one in logs.lines]
    answer("\n".join(lines))
