"""Waiting for what comes true in its own time: an emulated machine is slow."""

import time
from collections.abc import Callable

WITHIN_S = 60.0


def wait_until(
    holds: Callable[[], object],
    otherwise: str,
    within_s: float = WITHIN_S,
    *,
    every_s: float = 0.2,
) -> None:
    """Return once something holds; it is looked at again and again. `otherwise` tells if not."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"{otherwise} within {within_s:g} s"
        time.sleep(every_s)
