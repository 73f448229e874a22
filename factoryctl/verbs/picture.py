"""`status` where it is drawn or goes on: as a table, as text, or as a line of JSON each time."""

from argparse import Namespace
from datetime import UTC, datetime

from factoryctl.client import Connection, ask, connect
from factoryctl.layout import Picture, lay_out, plain_picture
from factoryctl.output import answer, is_terminal
from factoryctl.typed import read, stream
from factoryd.wire.answers import StatusReply
from factoryd.wire.messages import StatusCall, encode_call


def show(options: Namespace) -> int:
    """Show the picture of now; with `watch` go on until interrupted."""
    targets = StatusCall(targets=tuple(options.targets))
    if not options.watch:
        reply = ask(options.sockets, encode_call("Status", targets))
        _show_once(_lay_out(read(reply, StatusReply)))
        return 0
    with connect(options.sockets) as connection:
        if is_terminal() and not options.json:
            _watch(connection, targets)
        else:
            _repeat(connection, targets, as_json=options.json)
    return 0


def _lay_out(status: StatusReply) -> Picture:
    return lay_out(status, datetime.now(UTC))


def _show_once(picture: Picture) -> None:
    if not is_terminal():
        answer(plain_picture(picture))
        return
    from rich.console import Console  # noqa: PLC0415  slow, and only a terminal needs it

    from factoryctl.render import render  # noqa: PLC0415

    Console().print(render(picture))


def _repeat(connection: Connection, targets: StatusCall, *, as_json: bool) -> None:
    for reply in stream(connection, "Watch", targets, at_once=True):
        if reply is not None and as_json:
            answer(reply.parameters)
        elif reply is not None:
            answer(f"{plain_picture(_lay_out(read(reply, StatusReply)))}\n")


def _watch(connection: Connection, targets: StatusCall) -> None:
    """Fill the terminal's screen, ages growing, until interrupted."""
    from rich.live import Live  # noqa: PLC0415  slow, and only a terminal needs it

    from factoryctl.render import render  # noqa: PLC0415

    status: StatusReply | None = None
    with Live(screen=True, auto_refresh=False) as live:
        for reply in stream(connection, "Watch", targets, at_once=True):
            if reply is not None:
                status = read(reply, StatusReply)
            if status is not None:
                live.update(render(_lay_out(status)), refresh=True)
