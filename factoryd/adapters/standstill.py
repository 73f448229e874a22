"""Processes stopped one by one where no cgroup can be frozen, and known again by the next daemon."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import msgspec

from factoryd.adapters.pidfd import PidFd, Verdict, open_verified
from factoryd.adapters.proc import Stat, list_ancestors
from factoryd.core.model import ProcessIdentity

_STOPPED = "Tt"
"""States of a process that a signal or a tracer has stopped (proc(5))."""


class Standstill:
    """Who of one tree is stopped by us; a file remembers it for whoever takes the tree over.

    A process that stands still for another reason is none of ours and stays as it is.
    """

    def __init__(self, directory: str) -> None:
        """Take the run's directory; nothing is remembered where there is none."""
        self._file = Path(directory, "stopped") if directory else None

    def stop(self, members: Iterable[Stat]) -> frozenset[ProcessIdentity]:
        """Send SIGSTOP to those that move and return them; where there are none, all stand still.

        Ourselves and those we descend from are left alone.
        """
        spared = list_ancestors(os.getpid())
        known = frozenset(self._read())
        moving = frozenset(
            stat.identity
            for stat in members
            if _moves(stat, known=stat.identity in known) and stat.pid not in spared
        )
        # First: what has been stopped must be known, whatever becomes of us.
        self._remember(moving - known)
        for identity in moving:
            _send(identity, signal.SIGSTOP)
        return moving

    def end(self) -> None:
        """Let all that we have stopped go on, the youngest first, so that parents see no stop."""
        ours = self._read()
        for identity in sorted(ours, key=lambda one: one.start_ticks, reverse=True):
            _send(identity, signal.SIGCONT)
        if ours and self._file is not None:
            self._file.unlink(missing_ok=True)

    def _read(self) -> list[ProcessIdentity]:
        found: list[ProcessIdentity] = []
        if self._file is not None:
            with contextlib.suppress(FileNotFoundError):
                for line in self._file.read_bytes().splitlines():
                    with contextlib.suppress(msgspec.DecodeError):  # half a line: died in writing
                        found.append(msgspec.json.decode(line, type=ProcessIdentity))
        return found

    def _remember(self, identities: frozenset[ProcessIdentity]) -> None:
        if self._file is None or not identities:
            return
        lines = b"".join(msgspec.json.encode(one) + b"\n" for one in identities)
        with self._file.open("ab") as file:
            file.write(lines)


def _moves(stat: Stat, *, known: bool) -> bool:
    # Threads whose first one has ended stop as the others do, but no longer show it. Nor does who
    # waits in the kernel, as a shell does for a child it has just forked: it stops before it goes on.
    return not (stat.state in _STOPPED or (stat.state in "ZD" and known))


def _send(identity: ProcessIdentity, number: signal.Signals) -> None:
    """Signal a process that is still who it was; one that is gone, or not ours to signal, is not."""
    with contextlib.suppress(OSError):
        process: PidFd | Verdict = open_verified(identity)
        if isinstance(process, PidFd):
            with process:
                process.send(number)
