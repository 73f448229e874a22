"""Processes that are watched to their end, by descriptors that stay theirs."""

import os
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self


class Watched:
    """Some processes, each held by a pidfd; the kernel tells the moment at which one ends."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pidfds: dict[int, int] = {}
        for pid in pids:
            with suppress(ProcessLookupError):
                self._pidfds[os.pidfd_open(pid)] = pid

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the processes, alive or not."""
        for pidfd in self._pidfds:
            os.close(pidfd)

    def left(self) -> set[int]:
        """Return which of them live."""
        return self._left(0, set(self._pidfds.values()))

    def wait(self, within_s: float) -> tuple[float, int]:
        """Wait for the end of all; return when the last one ended, and how many live still.

        The moment is as `time.perf_counter` counts; with none to wait for it is now.
        """
        until = time.perf_counter() + within_s
        left, moment = set(self._pidfds.values()), time.perf_counter()
        while left and time.perf_counter() < until:
            now_left = self._left(until - time.perf_counter(), left)
            if now_left != left:
                moment = time.perf_counter()
            left = now_left
        return moment, len(left)

    def kill(self) -> None:
        """Send all of them SIGKILL at once."""
        for pidfd in self._pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def _left(self, within_s: float, of: set[int]) -> set[int]:
        poll = select.poll()
        for pidfd, pid in self._pidfds.items():
            if pid in of:
                poll.register(pidfd, select.POLLIN)
        ended = {self._pidfds[pidfd] for pidfd, _ in poll.poll(max(0, within_s) * 1000)}
        return of - ended
