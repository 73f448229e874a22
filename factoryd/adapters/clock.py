"""The machine's clocks."""

import time


class SystemClock:
    """Clocks of this machine."""

    def now(self) -> float:
        """Return Unix seconds (UTC)."""
        return time.time()  # noqa: TID251  this is the edge

    def boottime(self) -> float:
        """Return seconds since the machine started, sleep included (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
