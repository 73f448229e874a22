"""How many lines may pass in a time: a bucket of tokens that, once empty, is shut until it is full."""


class Throttle:
    """Lets `lines` pass at once, and as many again in each `period_s` seconds.

    When they are used up, nothing passes until all are back, which is after `period_s`: so what
    passes is stretches of lines, and not one here and there. `now` is of any clock, in seconds.
    """

    def __init__(self, lines: int, period_s: float, now: float) -> None:
        self._lines = lines
        self._period_s = period_s
        self._tokens = float(lines)
        self._at = now
        self._opens_at: float | None = None
        self._withheld = 0

    def admits(self, now: float) -> bool:
        """Say whether a line may pass, and count it: as passed, or as withheld."""
        self._fill(now)
        if self._opens_at is not None:
            self._withheld += 1
            return False
        self._tokens -= 1
        if self._tokens < 1:
            self._opens_at = now + self._period_s
        return True

    def take_withheld(self, now: float) -> int:
        """Return how many were withheld, and forget them; 0 while more of them may come."""
        self._fill(now)
        return 0 if self._opens_at is not None else self.give_up()

    def give_up(self) -> int:
        """Return how many were withheld so far, and forget them."""
        withheld, self._withheld = self._withheld, 0
        return withheld

    def is_untouched(self, now: float) -> bool:
        """Say whether it is as a new one would be."""
        self._fill(now)
        return self._tokens == self._lines and not self._withheld

    def _fill(self, now: float) -> None:
        if self._opens_at is None:
            more = (now - self._at) * self._lines / self._period_s
            self._tokens = min(self._lines, self._tokens + more)
        elif now >= self._opens_at:
            self._opens_at = None
            self._tokens = self._lines
        self._at = now
