"""`freeze`: has an issue stand still with all its agents."""

from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.errors import Failure
from factoryctl.layout import plain_frost
from factoryctl.output import answer
from factoryctl.typed import call
from factoryd.wire.answers import FrostReply
from factoryd.wire.messages import FreezeCall, ThawCall


def run(options: Namespace) -> int:
    """Freeze an issue and return once all its agents stand still."""
    return settle("Freeze", FreezeCall(target=options.issue, reason=options.reason), options)


def settle(method: str, parameters: FreezeCall | ThawCall, options: Namespace) -> int:
    """Freeze or thaw, and tell how many runs obey; 1 when some do not yet."""
    with connect(options.sockets) as connection:
        reply = call(connection, method, parameters, FrostReply)
    done = "frozen" if isinstance(parameters, FreezeCall) else "thawed"
    answer(msgspec.json.encode(reply).decode() if options.json else plain_frost(reply, done))
    if reply.late:
        raise Failure(
            f"{reply.late} of its agents' runs could not be {done} yet: the log of factoryd says "
            "why; kill the issue if it must not wait"
        )
    return 0
