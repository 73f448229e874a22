"""What a measurement gives, and how times are taken."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure: its value, what it is compared with, and whether the target is met."""

    name: str
    value: float
    target: str
    met: bool
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how many times the baseline it is."""
        return None if self.baseline is None else self.value / self.baseline


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
