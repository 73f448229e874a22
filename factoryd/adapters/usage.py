"""What processes use now."""

import psutil

from factoryd.adapters.proc import TICKS_PER_SECOND, Stat
from factoryd.core.model import Usage


def measure(members: dict[int, Stat], cpu_s: float | None = None) -> Usage:
    """Return the usage of these processes.

    `cpu_s` is what the cgroup counted; without it the sum of the processes is taken, which misses
    those that ended unwaited for. Memory is resident memory: pages that processes share count once
    for each of them.
    """
    resident = [_resident_bytes(pid) for pid in members]
    known = [count for count in resident if count is not None]
    if cpu_s is None and members:
        cpu_s = sum(stat.cpu_ticks for stat in members.values()) / TICKS_PER_SECOND
    return Usage(
        processes=len(members),
        cpu_s=cpu_s,
        memory_bytes=sum(known) if known or not members else None,
    )


def _resident_bytes(pid: int) -> int | None:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return None
