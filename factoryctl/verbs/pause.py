"""`pause`: has nothing new dispatched until `resume`."""

from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.layout import plain_pause
from factoryctl.output import answer
from factoryctl.typed import call
from factoryd.wire.answers import PauseReply
from factoryd.wire.messages import PauseCall, ResumeCall


def run(options: Namespace) -> int:
    """Pause dispatching; that it is paused already is no failure."""
    return settle("Pause", PauseCall(reason=options.reason), options)


def settle(method: str, parameters: PauseCall | ResumeCall, options: Namespace) -> int:
    """Pause or resume, and tell how it is now."""
    with connect(options.sockets) as connection:
        reply = call(connection, method, parameters, PauseReply)
    answer(msgspec.json.encode(reply).decode() if options.json else plain_pause(reply))
    return 0
