"""`retry`: has an ended or escalated issue begin anew."""

import json
from argparse import Namespace

from factoryctl.client import connect
from factoryctl.output import answer, printable
from factoryctl.typed import call
from factoryd.wire.answers import RetryReply
from factoryd.wire.messages import RetryCall


def run(options: Namespace) -> int:
    """Reopen an issue; it is dispatched as any other that is ready."""
    wanted = RetryCall(target=options.issue, reason=options.reason)
    with connect(options.sockets) as connection:
        reply = call(connection, "Retry", wanted, RetryReply)
    plain = printable(f"{reply.issue}  ready again, with all its attempts")
    answer(json.dumps({"issue": reply.issue}) if options.json else plain)
    return 0
