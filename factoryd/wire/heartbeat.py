"""The heartbeat file as those outside the daemon may believe it."""

import math

import msgspec

from factoryd.core.heartbeat import Heartbeat, doubt

__all__ = ["Heartbeat", "doubt", "parse_heartbeat"]

_STATUSES = {"starting", "running", "stopping"}


def parse_heartbeat(raw: bytes) -> Heartbeat:
    """Return the heartbeat that a file holds; raise `ValueError` when it cannot be a true one.

    Whether it is fresh, of this boot, and of a process that lives is for the caller to find out.
    """
    try:
        beat = msgspec.json.decode(raw, type=Heartbeat)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    if beat.status not in _STATUSES:
        raise ValueError(f"`status` is {beat.status!r}")
    if beat.pid <= 0:
        raise ValueError("`pid` is not that of a process")
    numbers = {
        "start_ticks": beat.start_ticks,
        "progress": beat.progress,
        "interval_s": beat.interval_s,
        "stale_after_s": beat.stale_after_s,
        "wall": beat.wall,
        "boottime": beat.boottime,
    }
    for name, number in numbers.items():
        if not math.isfinite(number) or number < 0:
            raise ValueError(f"`{name}` is {number}")
    return beat
