"""`reap-orphans`: ends agents that nobody looks after, through the daemon or without it."""

import os
import sys
from argparse import Namespace

from factoryctl.client import connect
from factoryctl.errors import BadUsage, Failure, Garbled, HungUp, NotAnswering, NotRunning
from factoryctl.output import answer, printable, say
from factoryctl.places import find_sockets
from factoryctl.typed import read, stream
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
        command = _command(options, failure)
        say(f"{failure}\nlooking without it")
    return _become(command)


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
        if options.state_dir is None and not _is_usual(named, options):
            raise BadUsage(
                f"{failure}; to reap without it, say where its state is: give --state-dir"
            )
    # -P: nothing is imported from the directory that this happens to be called in.
    command = [sys.executable, "-P", "-m", "factoryd", "reap"]
    for option, value in (
        ("--config", options.config),
        ("--state-dir", options.state_dir),
        ("--runtime-dir", runtime),
    ):
        command += [option, value] if value is not None else []
    command += ["--dry-run"] * options.dry_run + ["--json"] * options.json
    return command


def _become(command: list[str]) -> int:
    os.execv(command[0], command)  # noqa: S606  no shell is what is wanted


def _is_usual(named: str, options: Namespace) -> bool:
    """Say whether a socket is where a daemon has it whose state is at its usual place."""
    environ = {name: text for name, text in os.environ.items() if name != "FACTORYD_SOCKET"}
    return named in find_sockets(
        socket=None,
        runtime=options.runtime_dir,
        state=None,
        environ=environ,
        is_root=os.geteuid() == 0,
    )
