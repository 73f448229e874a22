"""How long from a request until so many agents run, each with its second process."""

import time

from bench.agents import pair_or_stubborn
from bench.results import Key, Results
from bench.sessions import Session

WORK = "start"
PER_AGENT = "per agent (ms)"


def measure(session: Session, count: int, results: Results) -> None:
    """Start agents and leave them running; the last to speak ends the measurement."""
    peer, words = session.peer, session.ground.words
    peer.prepare([pair_or_stubborn(number) for number in range(count)])
    words.forget()
    began = time.perf_counter()
    peer.launch()
    took = words.wait("up", count) - began
    results.add(Key(WORK, PER_AGENT, peer.name, count), took / count * 1000)
