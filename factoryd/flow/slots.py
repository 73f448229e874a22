"""How many issues are worked on at once."""

import trio


class Slots:
    """Slots for issues in flight, given out in the order of asking."""

    def __init__(self, total: int, taken: int = 0) -> None:
        """Start with `taken` slots in use, even if those are more than `total`."""
        self.total = total
        self._taken = taken
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def free(self) -> int:
        """Return how many slots may be taken now; never negative."""
        return max(0, self.total - self._taken - len(self._waiting))

    def take_nowait(self) -> None:
        """Take a free slot; raise `trio.WouldBlock` when there is none."""
        if self.free == 0:
            raise trio.WouldBlock
        self._taken += 1

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
