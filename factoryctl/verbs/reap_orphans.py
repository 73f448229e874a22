"""`reap-orphans`: ends agents that nobody looks after, through the daemon or without it."""

import os
from argparse import Namespace

from factoryctl.client import connect
from factoryctl.errors import BadUsage, Failure, Garbled, HungUp, NotAnswering, NotRunning
from factoryctl.output import answer, printable, say
from factoryctl.typed import read, stream
from factoryctl.without import become, command, has_own_socket
from factoryd.wire.account import describe_reaping
from factoryd.wire.answers import ReapReply
from factoryd.wire.messages import ReapCall

SURVIVORS = 7
_PROGRESS_S = 5


def run(options: Namespace) -> int:
    """Ask the daemon; where there is none, or it hangs, become `factoryd reap`."""
    try:
        return _ask(options)
    except (NotRunning, NotAnswering, HungUp, Garbled) as failure:
        reap = _command(options, failure)
        say(f"{failure}\nlooking without it")
    return become(reap)


def _ask(options: Namespace) -> int:
    silent_s = 0
    with connect(options.sockets) as connection:
        for reply in stream(connection, "Reap", ReapCall(dry_run=options.dry_run), more=False):
            if reply is not None:
                return _show(reply.parameters, read(reply, ReapReply), options)
            silent_s += 1
            if silent_s % _PROGRESS_S == 0:
                say(f"still waiting for agents to end ({silent_s} s)")
    raise HungUp("factoryd did not answer")


def _show(document: str, reply: ReapReply, options: Namespace) -> int:
    if options.json:
        answer(document)
    else:
        for line in describe_reaping(reply, dry_run=options.dry_run):
            answer(printable(line))
    return SURVIVORS if reply.survivors and not options.dry_run else 0


def _command(options: Namespace, failure: Failure) -> list[str]:
    """Return the command line of a `factoryd reap` for the same daemon."""
    runtime: str | None = options.runtime_dir
    named = options.socket or os.environ.get("FACTORYD_SOCKET")
    if named:
        runtime = runtime or os.path.dirname(named)  # noqa: PTH120  as it was written
        if options.state_dir is None and has_own_socket(options):
            raise BadUsage(
                f"{failure}; to reap without it, say where its state is: give --state-dir"
            )
    reap = command("reap", config=options.config, state_dir=options.state_dir, runtime_dir=runtime)
    return reap + ["--dry-run"] * options.dry_run + ["--json"] * options.json
