"""Faults that a test orders through FACTORYD_FAULT, to see what the next daemon makes of them."""

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import trio

from factoryd.core.errors import BadUsage
from factoryd.core.events import KINDS, Entry, Fact, Recorded, kind_of
from factoryd.core.model import Data
from factoryd.ports import LedgerStore

VARIABLE = "FACTORYD_FAULT"


class Act(StrEnum):
    """What goes wrong."""

    DIE_BEFORE = "die-before"
    """SIGKILL to itself, with the fact not committed."""
    DIE_AFTER = "die-after"
    """SIGKILL to itself, with the fact committed, not applied, and shown to nobody."""
    HANG = "hang"
    """The same moment; no task of the daemon ever runs again, and no signal is acted on."""


class Fault(Data, frozen=True, kw_only=True):
    """What goes wrong, and when: around the commit of the n-th fact of a kind."""

    act: Act
    kind: str
    number: int = 1


def read_fault(environ: Mapping[str, str]) -> Fault | None:
    """Return the fault that is ordered, None when there is none; raise `BadUsage` for nonsense."""
    text = environ.get(VARIABLE)
    if text is None:
        return None
    act, _, rest = text.partition(":")
    kind, _, number = rest.partition(":")
    kinds = sorted(map(kind_of, KINDS))
    if act in set(Act) and kind in kinds and (number or "1").isdecimal() and int(number or 1) > 0:
        return Fault(act=Act(act), kind=kind, number=int(number or 1))
    raise BadUsage(
        f"{VARIABLE}={text}: unknown: give {'|'.join(Act)}:KIND[:N], where N is 1 or more and KIND "
        f"is one of {', '.join(kinds)}; or unset it, it is for tests only"
    )


class FaultyStore:
    """A store around whose commits a daemon dies or hangs, once. See `ports.LedgerStore`."""

    def __init__(self, store: LedgerStore, fault: Fault) -> None:
        self._store = store
        self._fault = fault
        self._committed = 0

    def append(self, entries: Sequence[Entry]) -> list[Recorded]:
        """Commit all entries in one transaction, unless that is where the fault is."""
        here = sum(kind_of(entry.fact) == self._fault.kind for entry in entries)
        due = self._committed < self._fault.number <= self._committed + here
        if due and self._fault.act is Act.DIE_BEFORE:
            _die()
        recorded = self._store.append(entries)
        self._committed += here
        if due:
            _die() if self._fault.act is Act.DIE_AFTER else trio.from_thread.run_sync(_hang)
        return recorded

    def load(self) -> tuple[bytes | None, Iterable[Recorded]]:
        """Return the newest snapshot, if any, and the facts after it, oldest first."""
        return self._store.load()

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """Keep a snapshot of the state after fact `seq`, and drop older snapshots."""
        self._store.save_snapshot(seq, body)

    def read_facts(self, since: int, limit: int, issue: str | None) -> list[Recorded]:
        """Return up to `limit` facts numbered above `since`, oldest first."""
        return self._store.read_facts(since, limit, issue)

    def read_newest(self, kinds: Sequence[type[Fact]], before: int, limit: int) -> list[Recorded]:
        """Return up to `limit` facts of these kinds numbered below `before`, newest first."""
        return self._store.read_newest(kinds, before, limit)

    def forget(self, issues: Sequence[str], up_to: int, daemon_before: float) -> None:
        """Drop facts up to number `up_to`: of these issues, and of daemons before a moment."""
        self._store.forget(issues, up_to, daemon_before)

    def close(self) -> None:
        """Close the store; what was committed stays."""
        self._store.close()


def _die() -> None:
    signal.pidfd_send_signal(os.pidfd_open(os.getpid()), signal.SIGKILL)


def _hang() -> None:
    while True:
        signal.pause()
