"""What supervisors use while their agents do nothing."""

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from bench.results import Key, Results
from bench.sessions import Session

WORK = "idle"
CPU = "CPU, all helpers (% of one)"
PSS = "PSS, supervisor (MB)"
PSS_ALL = "PSS, all helpers (MB)"


def measure_memory(session: Session, count: int, results: Results) -> None:
    """Read what a supervisor has, alone and with the helpers that it has for each agent."""
    peer = session.peer
    own = peer.supervisors()
    results.add(Key(WORK, PSS, peer.name, count), sum(map(pss_mb, own)))
    others = session.ground.other_pids()
    results.add(Key(WORK, PSS_ALL, peer.name, count), sum(map(pss_mb, others)))


def measure_cpu(
    sessions: Iterable[Session], count: int, results: Results, *, seconds: float = 30
) -> None:
    """Watch supervisors with idle agents, all at the same time."""
    time.sleep(2)
    before = [(session, _group_cpu_s(session)) for session in sessions]
    time.sleep(seconds)
    for session, spent in before:
        used = _group_cpu_s(session) - spent
        results.add(Key(WORK, CPU, session.peer.name, count), used / seconds * 100)


def _group_cpu_s(session: Session) -> float:
    """Return the CPU seconds of all that ever ran on a ground; idle agents add nothing to it."""
    first, *_ = (session.ground.group / "cpu.stat").read_text().splitlines()
    return int(first.removeprefix("usage_usec ")) / 1e6


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, ended threads included, 0 of one that has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def pss_mb(pid: int) -> float:
    """Return the proportional share of memory of a process (MB), 0 of one that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
