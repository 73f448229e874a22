"""Wall clocks that a test can foresee."""

import trio

EPOCH = 1_700_000_000.0


class StillClock:
    """See `ports.Clock`. Moves only when the test sets `at`."""

    def __init__(self, at: float = EPOCH) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def boottime(self) -> float:
        return self.at - EPOCH


class TrioClock:
    """See `ports.Clock`. Goes with trio's clock, so with a mock clock too; a test may step it."""

    def __init__(self) -> None:
        self.stepped_s = 0.0

    def now(self) -> float:
        return EPOCH + trio.current_time() + self.stepped_s

    def boottime(self) -> float:
        return trio.current_time()
