"""`shutdown`: stops the daemon and every agent, and waits until that is done."""

import json
from argparse import Namespace

from factoryctl.client import connect
from factoryctl.errors import Unproven
from factoryctl.offline import judge
from factoryctl.output import answer, say
from factoryctl.typed import TICK_S, call, check_alive
from factoryd.wire.answers import ShutdownReply
from factoryd.wire.messages import ShutdownCall

_PROGRESS_TICKS = 5


def run(options: Namespace) -> int:
    """Ask the daemon to stop and return when it is gone.

    A daemon takes its heartbeat file away only once nothing of it is left: that is the proof.
    """
    with connect(options.sockets) as connection:
        pid = call(connection, "Shutdown", ShutdownCall(), ShutdownReply).pid
        say(f"factoryd (pid {pid}) is stopping")
        for ticks, _ in enumerate(connection.wait_closed(TICK_S), start=1):
            if ticks % _PROGRESS_TICKS == 0:
                say(f"factoryd (pid {pid}) is still stopping ({ticks * TICK_S:.0f} s)")
                check_alive(connection)
        proven = judge(connection.path) is None
    if options.json:
        answer(json.dumps({"pid": pid, "stopped": proven}))
    elif proven:
        answer(f"factoryd (pid {pid}) has stopped, nothing of it runs any more")
    if not proven:
        raise Unproven(
            f"factoryd (pid {pid}) ended without proving that nothing is left: "
            "its log says what is; the next start of factoryd goes on with it"
        )
    return 0
