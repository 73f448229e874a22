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


def doubt(beat: Heartbeat, *, boot_id: str, boottime: float, start_ticks: int | None) -> str | None:
    """Return why a heartbeat is not that of a process which lives; None when it is.

    `boot_id` and `boottime` (CLOCK_BOOTTIME, s) are the machine's now; `start_ticks` is when the
    process that has the heartbeat's pid was started, None when none has.
    """
    if beat.boot_id != boot_id:
        return "its heartbeat is from before the machine started"
    if boottime < beat.boottime:
        return "its heartbeat is from the future"
    if start_ticks != beat.start_ticks:
        return f"its process {beat.pid} has ended"
    return None
