"""How figures grow with the number of agents, and the database with that of finished issues."""

import time
from pathlib import Path

from bench.agents import Agent
from bench.factory import Connection, wait_until
from bench.peers.factory import Factoryd
from bench.results import Key, Results
from bench.sessions import Session, Sessions
from bench.work import idling, looking, starting

WORK = "growth"
START = "start, all (ms)"
STATUS = "status by API (ms)"
CPU = "idle CPU, all helpers (% of one)"
PSS = "PSS, supervisor (MB)"
PSS_ALL = "PSS, all helpers (MB)"
DATABASE = "database after so many finished issues (kB)"
PEERS = ("bare trio", "factoryd")


def measure(sessions: Sessions, name: str, count: int, results: Results, *, seconds: float) -> None:
    """Start so many agents, ask for them, and watch their supervisor do nothing."""
    own = Results()
    with sessions.open(name) as session:
        starting.measure(session, count, own)
        looking.measure(session, count, own)
        idling.measure_memory(session, count, own)
        idling.measure_cpu([session], count, own, seconds=seconds)
    taken = (
        (START, starting.WORK, starting.PER_AGENT, count),
        (STATUS, looking.WORK, looking.BY_API, 1),
        (CPU, idling.WORK, idling.CPU, 1),
        (PSS, idling.WORK, idling.PSS, 1),
        (PSS_ALL, idling.WORK, idling.PSS_ALL, 1),
    )
    for figure, work, measured, times in taken:
        values = own.samples[Key(work, measured, name, count)]
        results.add(Key(WORK, figure, name, count), *(value * times for value in values))


def measure_database(sessions: Sessions, counts: tuple[int, ...], results: Results) -> None:
    """Finish issues and look at the ledger each time so many of them are done."""
    with sessions.open("factoryd") as session:
        first = 0
        for count in counts:
            _finish(session, first, count)
            first = count
            size = sum(file.stat().st_size for file in _ledger(session))
            results.add(Key(WORK, DATABASE, "factoryd", count), size / 1000)


def _finish(session: Session, first: int, count: int) -> None:
    peer = session.peer
    assert isinstance(peer, Factoryd)
    peer.prepare([Agent(number, "exit 0") for number in range(first, count)])
    peer.launch()
    with Connection(peer.socket) as connection:
        wait_until(
            lambda: connection.call("Status", targets=[])["counters"]["done"] >= count,
            seconds=300,
            pause_s=0.2,
        )
    time.sleep(0.5)


def _ledger(session: Session) -> list[Path]:
    return list((session.ground.root / "st").glob("*.sqlite*"))
