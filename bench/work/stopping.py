"""How long until nothing is left of all agents, every tenth of which ignores SIGTERM."""

import time

from bench.results import Key, Results
from bench.sessions import Session
from bench.watched import Watched

WORK = "stop all"
TOOK = "beyond the grace (ms)"
SURVIVORS = "survivors"
GRACE_S = 2.0
SETTLE_S = 1.0
"""How long a supervisor's word that all has ended may be ahead of the end."""

TOO_LONG_MS = 10_000
"""What takes longer is measured once, so that the others' turn comes."""


def measure(session: Session, count: int, results: Results) -> None:
    """Stop what runs; over when the supervisor says so and the kernel has ended the last one."""
    peer, ground = session.peer, session.ground
    key = Key(WORK, TOOK, peer.name, count)
    if (results.median(key) or 0) > TOO_LONG_MS:
        return
    with Watched(ground.agent_pids()) as watched:
        began = time.perf_counter()
        peer.stop_all()
        said = time.perf_counter()
        moment, _ = watched.wait(SETTLE_S)
        ended = max(said, moment) - began
    results.add(key, (ended - GRACE_S) * 1000)
    results.add(Key(WORK, SURVIVORS, peer.name, count), ground.end_agents())
