"""How long it takes to be told the state of all agents."""

import subprocess
import time

from bench.figures import seconds_of
from bench.peers.port import Cannot
from bench.results import Key, Results
from bench.sessions import Session

WORK = "status"
BY_API = "by API (ms)"
BY_COMMAND = "by command (ms)"
ASKED = 50
COMMANDS = 3
WITHIN_S = 60.0


def measure(session: Session, count: int, results: Results) -> None:
    """Ask over an open connection, then by the command, whose whole process counts."""
    peer = session.peer
    wait_running(session, count)
    asked = [seconds_of(peer.running) * 1000 for _ in range(ASKED)]
    results.add(Key(WORK, BY_API, peer.name, count), *asked)
    try:
        command = peer.status_command()
    except Cannot:
        return
    environ = session.ground.environ
    for _ in range(COMMANDS):
        took = seconds_of(
            lambda: subprocess.run(
                command, env=environ, cwd=session.ground.root, stdout=subprocess.DEVNULL, check=True
            )
        )
        results.add(Key(WORK, BY_COMMAND, peer.name, count), took * 1000)


def wait_running(session: Session, count: int) -> None:
    """Return once a supervisor says that so many agents run."""
    until = time.monotonic() + WITHIN_S
    while (running := session.peer.running()) != count:
        if time.monotonic() > until:
            raise TimeoutError(f"{session.peer.name}: {running} of {count} agents run")
        time.sleep(0.005)
