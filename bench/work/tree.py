"""What is left of a tree of 22 processes, a daemonised grandchild among them, when it was stopped."""

import time

from bench.agents import TREE, tree
from bench.factory import wait_until
from bench.results import Key, Results
from bench.sessions import Session
from bench.watched import Watched
from bench.work.looking import wait_running

WORK = "tree"
TOOK = "to zero survivors (ms)"
SAID = "until it says so (ms)"
SURVIVORS = "survivors"
SETTLE_S = 0.5


def measure(session: Session, count: int, results: Results) -> None:
    """Start so many trees and stop one after the other."""
    peer, ground = session.peer, session.ground
    agents = [tree(number) for number in range(count)]
    peer.prepare(agents)
    peer.launch()
    ground.words.wait("up", count)
    wait_until(lambda: sum(map(len, ground.naps().values())) == count * TREE, seconds=60)
    wait_running(session, count)  # what nobody knows yet cannot be stopped
    for agent in agents:
        with Watched(ground.naps()[agent.number]) as watched:
            began = time.perf_counter()
            peer.stop(agent)
            said = time.perf_counter()
            moment, survivors = watched.wait(SETTLE_S)
            watched.kill()
        results.add(Key(WORK, SAID, peer.name, 1), (said - began) * 1000)
        results.add(Key(WORK, SURVIVORS, peer.name, 1), survivors)
        if not survivors:
            results.add(Key(WORK, TOOK, peer.name, 1), (max(said, moment) - began) * 1000)
