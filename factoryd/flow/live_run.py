"""A run whose scope is open: its tree, and what is seen of it while it lives."""

from contextlib import suppress

import trio

from factoryd.core.model import Receipt, Usage
from factoryd.core.records import RunRecord
from factoryd.ports import Clock, Desk, Tree

SAMPLE_EVERY_S = 1.0
"""Usage is read at most so often, however often it is asked for."""


class LiveRun:
    """A run whose scope is open: its tree, and what was seen of it so far."""

    def __init__(
        self, record: RunRecord, tree: Tree, desk: Desk, clock: Clock, *, offset: int
    ) -> None:
        self.record = record
        self.tree = tree
        self.usage = Usage()
        self.cpu_s: float | None = None
        self.peak_processes: int | None = None
        self.peak_memory_bytes: int | None = None
        self.last_output_at: float | None = None
        self.last_sign = trio.current_time()
        self.stalled = False
        self.closed = False
        self._wrote = trio.Event()
        self._moved = trio.Event()
        self._desk = desk
        self._clock = clock
        self._offset = offset

    @property
    def offset(self) -> int:
        """Return the position up to which the run's output has been passed on."""
        return self._offset

    def advance(self, offset: int) -> None:
        """Note that everything before `offset` has been passed on."""
        self._offset = offset
        self.last_output_at = self._clock.now()
        self.last_sign = trio.current_time()
        with suppress(OSError):  # a full disk: the next daemon passes on some lines again
            self._desk.note_followed(self.record.place, offset)
        self._wrote.set()
        self._announce()

    def close(self) -> None:
        """Release the tree; whoever waits for more of the run learns that there is none."""
        self.tree.close()
        self.closed = True
        self._announce()

    async def wait_beyond(self, offset: int) -> None:
        """Return once output beyond `offset` was passed on, or none will be."""
        while self._offset <= offset and not self.closed:
            await self._moved.wait()

    def _announce(self) -> None:
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    async def watch_usage(self) -> None:
        """Look at the usage, for its peaks, while the run writes; a silent run wakes nobody."""
        while True:
            await self._wrote.wait()
            self._wrote = trio.Event()
            await self.sample()
            await trio.sleep(SAMPLE_EVERY_S)

    async def sample(self) -> None:
        """Read the tree's usage, in a thread, and remember it."""
        self.note(await trio.to_thread.run_sync(self.tree.usage))

    def receipt(self) -> Receipt:
        """Return what the run came to, once it has ended and was read for the last time."""
        now, lack = self._clock.now(), self.usage.out_of_memory
        ended_at = min(now, self.usage.ended_at or now)  # it may have ended while nobody looked
        return Receipt(
            wall_s=max(0.0, ended_at - self.record.since),
            cpu_s=self.cpu_s,
            peak_processes=self.peak_processes,
            peak_memory_bytes=self.peak_memory_bytes,
            oom_kills=lack.kills if lack is not None else 0,
        )

    def note(self, usage: Usage) -> None:
        """Take a reading of the tree's usage: the newest, and the peaks."""
        if (usage.cpu_s or 0) > (self.cpu_s or 0):
            self.last_sign = trio.current_time()
            self.cpu_s = usage.cpu_s
        self.usage = usage
        self.peak_processes = usage.peak_processes or _larger(self.peak_processes, usage.processes)
        self.peak_memory_bytes = usage.peak_memory_bytes or _larger(
            self.peak_memory_bytes, usage.memory_bytes
        )


def _larger(seen: int | None, now: int | None) -> int | None:
    """Return the larger; None when there is none, and of what has ended nobody has seen more."""
    return max(filter(None, (seen, now)), default=None)
