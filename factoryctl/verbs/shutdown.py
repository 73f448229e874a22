"""`shutdown`: stops the daemon and every agent, and waits until that is done."""

import json
from argparse import Namespace

from factoryctl.client import connect
from factoryctl.output import answer, say
from factoryctl.typed import TICK_S, call, check_alive
from factoryd.wire.messages import ShutdownCall, ShutdownReply

_PROGRESS_TICKS = 5


def run(options: Namespace) -> int:
    """Ask the daemon to stop and return when it is gone."""
    with connect(options.sockets) as connection:
        pid = call(connection, "Shutdown", ShutdownCall(), ShutdownReply).pid
        say(f"factoryd (pid {pid}) is stopping")
        for ticks, _ in enumerate(connection.wait_closed(TICK_S), start=1):
            if ticks % _PROGRESS_TICKS == 0:
                say(f"factoryd (pid {pid}) is still stopping ({ticks * TICK_S:.0f} s)")
                check_alive(connection)
    if options.json:
        answer(json.dumps({"pid": pid, "stopped": True}))
    else:
        answer(f"factoryd (pid {pid}) has stopped")
    return 0
