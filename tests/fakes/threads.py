"""Threads that are none, for tests with a mock clock: it would run on while a real one works."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def run_inline(
    call: Callable[[*Ts], T],
    *args: *Ts,
    abandon_on_cancel: bool = False,
    limiter: trio.CapacityLimiter | None = None,
) -> T:
    """Stand in for `trio.to_thread.run_sync`: a checkpoint, then the call, here and now."""
    await trio.lowlevel.checkpoint()
    return call(*args)
