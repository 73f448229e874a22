"""`explain`: why an issue is dispatched or not, check by check."""

from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.layout import plain_explanation
from factoryctl.output import answer
from factoryctl.typed import call
from factoryd.wire.answers import ExplainReply
from factoryd.wire.messages import ExplainCall


def run(options: Namespace) -> int:
    """Show every check and its answer; an issue that nobody knows is explained, too."""
    with connect(options.sockets) as connection:
        reply = call(connection, "Explain", ExplainCall(target=options.issue), ExplainReply)
    answer(msgspec.json.encode(reply).decode() if options.json else plain_explanation(reply))
    return 0
