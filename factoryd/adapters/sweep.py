"""The marks that tell the processes of one run from all others, and the sweeps that find them."""

import hashlib
import math
import os
import threading  # noqa: TID251 (a lock between threads that trio made)
import time
from collections import defaultdict
from collections.abc import Iterable

from factoryd.adapters.proc import Stat, list_pids, read, read_env, read_stat
from factoryd.core.model import Data, RunId

_KTHREADD = 2
_MARKED = 1 << 52
"""Marks are KiB, from 2^52 on: as bytes they still fit, and no limit meant as one is so high."""


def mark_of(name: str, run: RunId) -> int:
    """Return the mark of a run of the daemon with this name (KiB)."""
    digest = hashlib.sha256(f"{name}/{run}".encode()).digest()
    return _MARKED | int.from_bytes(digest[:8]) >> 12


def read_mark(pid: int) -> int | None:
    """Return the mark a process carries; None when it carries none."""
    for line in (read(pid, "limits") or b"").splitlines():
        if line.startswith(b"Max resident set"):
            soft = line.split()[3]
            mark = int(soft) >> 10 if soft.isdigit() else 0
            return mark if mark >= _MARKED else None
    return None


class Seen(Data, frozen=True, kw_only=True):
    """A process as one sweep saw it; `run` is read only where there is no mark."""

    stat: Stat
    mark: int | None
    run: str | None


class Swept:
    """What one sweep saw, by all that can tie a process to a run."""

    def __init__(self, everyone: Iterable[Seen]) -> None:
        self.seen = {seen.stat.pid: seen for seen in everyone}
        self._marked: defaultdict[int | None, list[int]] = defaultdict(list)
        self._started_for: defaultdict[str | None, list[int]] = defaultdict(list)
        self._sessions: defaultdict[int, list[int]] = defaultdict(list)
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for pid, seen in self.seen.items():
            self._marked[seen.mark].append(pid)
            self._started_for[seen.run].append(pid)
            self._sessions[seen.stat.session].append(pid)
            self._children[seen.stat.ppid].append(pid)

    def list_marked(self, mark: int) -> list[int]:
        """Return the processes with this mark."""
        return self._marked.get(mark, [])

    def list_started_for(self, run: RunId) -> list[int]:
        """Return the processes without a mark whose environment names this run."""
        return self._started_for.get(run, [])

    def list_session(self, leader: int) -> list[int]:
        """Return the processes of a session, its leader with them."""
        return self._sessions.get(leader, [])

    def list_with_descendants(self, pids: Iterable[int]) -> list[int]:
        """Return these processes and all that descend from them, each once."""
        found = dict.fromkeys(pids)
        queue = list(found)
        for pid in queue:  # grows while it is walked
            new = [child for child in self._children.get(pid, ()) if child not in found]
            found.update(dict.fromkeys(new))
            queue.extend(new)
        return queue


class Sweeper:
    """Reads /proc for the runs of one daemon, once for all that ask at the same time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._since_ticks: float = math.inf
        self._began = -math.inf
        self._quick = False
        self._swept = Swept(())
        self._foreign: set[int] = set()

    def reach_back(self, ticks: int) -> None:
        """Include processes that started at this tick or later."""
        if ticks < self._since_ticks:
            with self._lock:
                self._since_ticks = ticks
                self._foreign = set()

    def sweep(self, *, quick: bool = False) -> Swept:
        """Return the processes within reach, as of some moment after this call began.

        A quick sweep passes over the pids that were out of reach in the last full one, so it may
        miss a process that took one of these pids since: who is seen is there, none is no proof.
        """
        asked = time.monotonic()
        with self._lock:
            if self._began <= asked or (self._quick and not quick):
                self._began, self._quick = time.monotonic(), quick
                pids = set(list_pids())
                if quick:
                    pids -= self._foreign
                stats = [stat for pid in pids if (stat := read_stat(pid)) is not None]
                near = [stat for stat in stats if self._is_near(stat)]
                self._swept = Swept(self._look(stat) for stat in near)
                if not quick:
                    self._foreign = pids - self._swept.seen.keys()
            return self._swept

    def _is_near(self, stat: Stat) -> bool:
        kernel = _KTHREADD in (stat.pid, stat.ppid)
        return stat.start_ticks >= self._since_ticks and not kernel

    def _look(self, stat: Stat) -> Seen:
        before = self._swept.seen.get(stat.pid)
        if before and before.mark is not None and before.stat.start_ticks == stat.start_ticks:
            return Seen(stat=stat, mark=before.mark, run=None)  # a mark, once seen, stays
        if stat.ended and stat.ppid != os.getpid():
            return Seen(stat=stat, mark=None, run=None)  # somebody else's to reap
        mark = read_mark(stat.pid)
        return Seen(stat=stat, mark=mark, run=read_run(stat.pid) if mark is None else None)


def read_run(pid: int) -> str | None:
    """Return the run a process was started for, as its environment has it."""
    try:
        return read_env(pid, "FACTORY_RUN")
    except PermissionError:  # another user's, who cannot be our agent
        return None
