"""The daemon's sign of life, as written to its file."""

from factoryd.core.model import Data


class Heartbeat(Data, frozen=True, kw_only=True):
    """Who beats, in which state, and when: by the wall clock and by the clock since boot (s)."""

    pid: int
    start_ticks: int
    boot_id: str
    status: str
    progress: int
    interval_s: float
    stale_after_s: float
    wall: float
    boottime: float
