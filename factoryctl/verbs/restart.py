"""`restart`: has a new daemon take the place of the one that runs, with the same agents."""

import time
from argparse import Namespace

import msgspec

from factoryctl.client import Connection, connect
from factoryctl.errors import BadUsage, Failure, HungUp, NotAnswering, NotRunning
from factoryctl.output import answer, say
from factoryctl.typed import TICK_S, call, check_alive
from factoryd.wire.answers import DaemonView, ShutdownReply, StatusReply
from factoryd.wire.messages import ShutdownCall, StatusCall

NEXT_S = 60.0
"""How long the next daemon may take to answer; a service manager may wait before it starts one."""

_LOOK_EVERY_S = 0.05
_PROGRESS_TICKS = 5


class _Restarted(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` says of the daemon that goes on."""

    pid: int
    started_at: str
    adopted_runs: int


def run(options: Namespace) -> int:
    """Replace the daemon and return once the next one answers with the agents it has taken over."""
    if not options.keep_agents:
        raise BadUsage(
            "restart leaves the agents running, so say restart --keep-agents; to end them too, "
            "run factoryctl shutdown and start factoryd again"
        )
    with connect(options.sockets) as connection:
        old = _look(connection)
        parameters = ShutdownCall(reason="restarted by a person", keep_agents=True)
        call(connection, "Shutdown", parameters, ShutdownReply)
        say(f"factoryd (pid {old.pid}) is leaving its agents to the next daemon")
        for ticks, _ in enumerate(connection.wait_closed(TICK_S), start=1):
            if ticks % _PROGRESS_TICKS == 0:
                say(f"factoryd (pid {old.pid}) is still stopping ({ticks * TICK_S:.0f} s)")
                check_alive(connection)
        new = _wait_for_next(connection.path, old)
    if options.json:
        restarted = _Restarted(
            pid=new.pid, started_at=new.started_at, adopted_runs=new.adopted_runs
        )
        answer(msgspec.json.encode(restarted).decode())
    else:
        answer(f"factoryd (pid {new.pid}) goes on: {new.adopted_runs} runs adopted")
    return 0


def _look(connection: Connection) -> DaemonView:
    return call(connection, "Status", StatusCall(), StatusReply).daemon


def _wait_for_next(path: str, old: DaemonView) -> DaemonView:
    deadline = time.monotonic() + NEXT_S
    while time.monotonic() < deadline:
        try:
            with connect([path]) as connection:
                new = _look(connection)
        except (NotRunning, NotAnswering, HungUp):
            new = old
        if new.started_at != old.started_at:
            return new
        time.sleep(_LOOK_EVERY_S)  # noqa: TID251  factoryctl has nothing else to do
    raise Failure(
        f"factoryd (pid {old.pid}) has stopped and no other has answered for {NEXT_S:.0f} s: its "
        "agents go on; start factoryd and it takes them over"
    )
