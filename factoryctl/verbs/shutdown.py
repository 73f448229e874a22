"""`shutdown`: stops the daemon and every agent, and waits until that is done."""

import json
from argparse import Namespace
from collections.abc import Iterator

from factoryctl.client import Connection, connect
from factoryctl.errors import (
    Failure,
    Garbled,
    HungUp,
    NotAllowed,
    NotAnswering,
    NotRunning,
    Unproven,
)
from factoryctl.offline import Verdict, hold, judge
from factoryctl.output import answer, say
from factoryctl.typed import TICK_S, call
from factoryd.wire.answers import ShutdownReply
from factoryd.wire.messages import ShutdownCall

_PROGRESS_TICKS = 5


def run(options: Namespace) -> int:
    """Ask the daemon to stop and return when it is gone.

    One that does not answer gets SIGTERM instead, if its heartbeat proves who it is and that it
    makes progress; else nothing is signalled. A daemon takes its heartbeat file away only once
    nothing of it is left: that is the proof.
    """
    try:
        with connect(options.sockets) as connection:
            socket, pid = connection.path, _ask(connection)
    except (NotRunning, NotAnswering, HungUp, Garbled) as failure:
        socket, pid = _signal(options.sockets, failure)
    proven = judge(socket) is None
    if options.json:
        answer(json.dumps({"pid": pid, "stopped": proven}))
    elif proven:
        answer(f"factoryd (pid {pid}) has stopped, nothing of it runs any more")
    if not proven:
        raise Unproven(
            f"factoryd (pid {pid}) ended without proving that nothing is left: "
            "its log says what is; `factoryctl reap-orphans` ends it, or the next start does"
        )
    return 0


def _ask(connection: Connection) -> int:
    pid = call(connection, "Shutdown", ShutdownCall(), ShutdownReply).pid
    say(f"factoryd (pid {pid}) is stopping")
    _tell(pid, connection.path, connection.wait_closed(TICK_S))
    return pid


def _signal(sockets: list[str], failure: Failure) -> tuple[str, int]:
    """Stop by SIGTERM a daemon that does not answer; raise when that would be a guess."""
    for socket in sockets:
        verdict = judge(socket)
        if verdict is None or verdict.pid is None:
            continue
        if not verdict.fresh:
            raise _hangs(verdict)
        with hold(verdict.pid, socket) as process:
            if process is None:
                continue
            try:
                process.terminate()
            except PermissionError:
                raise NotAllowed(f"factoryd (pid {verdict.pid}): you may not end it") from failure
            say(f"{failure}\nfactoryd (pid {verdict.pid}) was told to stop by SIGTERM instead")
            _tell(verdict.pid, socket, process.wait_ended(TICK_S))
            return socket, verdict.pid
    raise failure


def _tell(pid: int, socket: str, waiting: Iterator[None]) -> None:
    """Wait for the end, with a word now and then; raise when the daemon hangs."""
    for ticks, _ in enumerate(waiting, start=1):
        if ticks % _PROGRESS_TICKS == 0:
            say(f"factoryd (pid {pid}) is still stopping ({ticks * TICK_S:.0f} s)")
            verdict = judge(socket)
            if verdict is not None and not verdict.fresh:
                raise _hangs(verdict)


def _hangs(verdict: Verdict) -> NotAnswering:
    return NotAnswering(
        f"{verdict.reason}, and it does not answer: `factoryd reap --force` ends it and every agent"
    )
