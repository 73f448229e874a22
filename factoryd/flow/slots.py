"""How many issues are worked on at once."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

import trio

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long an issue keeps its slot while it waits for an answer; longer each further time."""


class Slots:
    """Slots for issues in flight, given out in the order of asking."""

    def __init__(self, total: int, taken: int = 0) -> None:
        """Start with `taken` slots in use, even if those are more than `total`."""
        self.total = total
        self.freed: Callable[[], None] = lambda: None
        """Called whenever a slot is free that nobody waits for."""
        self._taken = taken
        self._waiting = trio.lowlevel.ParkingLot()
        self._patience: dict[Seat, float] = {}
        """Issues that wait for an answer, and when they are to have given their slots back."""
        self._waits = trio.Event()

    async def run(self) -> None:
        """Have issues give their slots back whose answers take long, until cancelled.

        One task does so for all: nearly every answer comes at once, and then a task of its own
        would be a good part of what an issue's start costs.
        """
        while True:
            await self._waits.wait()
            self._waits = trio.Event()
            while self._patience:
                # Whoever begins to wait meanwhile has at least `PATIENCE_S`.
                wait_s = min(self._patience.values()) - trio.current_time()
                await trio.sleep(min(max(0.0, wait_s), PATIENCE_S))
                now = trio.current_time()
                for seat in [one for one, due in self._patience.items() if due <= now]:
                    del self._patience[seat]
                    seat.give()

    def recount(self, taken: int) -> None:
        """Have this many in use, whatever was counted before anybody had one."""
        self._taken = taken

    @contextmanager
    def note_wait(self, seat: "Seat", due: float) -> Generator[None]:
        """Have a seat given back if this is not left before `due` (in trio's time)."""
        self._patience[seat] = due
        self._waits.set()
        try:
            yield
        finally:
            self._patience.pop(seat, None)

    @property
    def free(self) -> int:
        """Return how many slots may be taken now; never negative."""
        return max(0, self.total - self._taken - len(self._waiting))

    def take_nowait(self) -> None:
        """Take a free slot; raise `trio.WouldBlock` when there is none."""
        if self.free == 0:
            raise trio.WouldBlock
        self._taken += 1

    def resize(self, total: int) -> None:
        """Have another number of slots from now on; those in use stay so until they are given back."""
        self.total = total
        while self._waiting and self._taken < total:
            self._taken += 1
            self._waiting.unpark()
        self.freed()

    async def take(self) -> None:
        """Take a slot, waiting for one in turn."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.free:
            self._taken += 1
        else:
            await self._waiting.park()

    def give(self) -> None:
        """Give a slot back; whoever waits longest has it then."""
        if self._waiting and self._taken <= self.total:
            self._waiting.unpark()
        else:
            self._taken -= 1
            self.freed()


class Seat:
    """One issue's slot: taken, or given back, as often as needed."""

    def __init__(self, slots: Slots, *, taken: bool) -> None:
        """Prepare for an issue that has a slot already, or none."""
        self._slots = slots
        self._taken = taken

    async def take(self) -> None:
        """Have a slot, waiting for one in turn."""
        if not self._taken:
            await self._slots.take()
            self._taken = True

    def give(self) -> None:
        """Have none."""
        if self._taken:
            self._taken = False
            self._slots.give()

    async def lend_while(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return an answer that came while the slot was had; `ask` may be called several times.

        An answer that takes long costs no other issue its turn: the slot is given back meanwhile
        (by `Slots.run`), and asked again is whoever answered before there was a slot again.
        """
        patience_s = PATIENCE_S
        while True:
            with self._slots.note_wait(self, trio.current_time() + patience_s):
                answer = await ask()
            if self._taken:
                return answer
            await self.take()
            patience_s *= 2
