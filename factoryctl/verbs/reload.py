"""`reload`: has the daemon read its configuration anew."""

from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.errors import Failure
from factoryctl.layout import plain_reload
from factoryctl.output import answer, say
from factoryctl.typed import read, stream
from factoryd.wire.answers import ReloadReply
from factoryd.wire.messages import ReloadCall


def run(options: Namespace) -> int:
    """Reload, and tell what has changed, or the mistakes for which nothing has."""
    with connect(options.sockets) as connection:
        answers = stream(connection, "Reload", ReloadCall(), more=False)
        reply = next(read(one, ReloadReply) for one in answers if one is not None)
    if options.json:
        answer(msgspec.json.encode(reply).decode())
    elif not reply.mistakes:
        answer(plain_reload(reply))
    if not reply.mistakes:
        return 0
    for mistake in reply.mistakes:
        say(mistake)
    raise Failure("the configuration before it stays in force: mend the file and reload again")
