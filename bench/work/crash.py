"""What becomes of agents when their supervisor is killed and started again."""

import time

from bench.agents import pair
from bench.peers.port import Cannot
from bench.results import Key, Results
from bench.sessions import Session
from bench.watched import Watched
from bench.work.looking import wait_running

WORK = "crash"
LOST = "lost"
DUPLICATED = "duplicated"
ORPHANED = "orphaned processes"
BACK = "until in control (ms)"
SETTLE_S = 1.0
"""In which a supervisor may start what it takes to be missing."""


def measure(session: Session, count: int, results: Results, *, times: int = 1) -> None:
    """Kill all processes of a supervisor and start it again, so many times in a row.

    Lost is an agent whose first run has ended, duplicated one that runs more than once, orphaned
    a process of a first run that lives when all agents were stopped by the new supervisor.
    """
    peer, ground = session.peer, session.ground
    peer.prepare([pair(number) for number in range(count)])
    peer.launch()
    ground.words.wait("up", count)
    wait_running(session, count)
    first = ground.naps()
    with Watched(ground.agent_pids()) as watched:
        for _ in range(times):
            try:
                took = _kill_and_restart(session, count)
            except Cannot as reason:
                results.reasons[WORK, peer.name] = str(reason)
                return
            results.add(Key(WORK, BACK, peer.name, count), took * 1000)
            if times == 1:
                time.sleep(SETTLE_S)
            now, alive = ground.naps(), watched.left()
            lost = sum(not alive.intersection(pids) for pids in first.values())
            results.add(Key(WORK, LOST, peer.name, count), lost)
            duplicated = sum(len(pids) > 1 for pids in now.values())
            results.add(Key(WORK, DUPLICATED, peer.name, count), duplicated)
        peer.stop_all()
        _, orphaned = watched.wait(SETTLE_S)
        results.add(Key(WORK, ORPHANED, peer.name, count), orphaned)
    ground.end_agents()


def _kill_and_restart(session: Session, count: int) -> float:
    if session.peer.name == "systemd":
        session.peer.restart()
    with Watched(session.peer.supervisors()) as supervisors:
        supervisors.kill()
        supervisors.wait(10)
    began = time.perf_counter()
    session.peer.restart()
    wait_running(session, count)
    return time.perf_counter() - began
