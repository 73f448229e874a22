"""What processes use now, read from /proc."""

import os

from factoryd.adapters.proc import TICKS_PER_SECOND, Stat, read
from factoryd.core.model import Usage

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def measure(members: dict[int, Stat], cpu_s: float | None = None) -> Usage:
    """Return the usage of these processes.

    `cpu_s` is what the cgroup counted; without it the sum of the processes is taken, which misses
    those that ended unwaited for. Memory is resident memory: pages that processes share count once
    for each of them.
    """
    pages = [_resident_pages(pid) for pid in members]
    known = [count for count in pages if count is not None]
    if cpu_s is None and members:
        cpu_s = sum(stat.cpu_ticks for stat in members.values()) / TICKS_PER_SECOND
    return Usage(
        processes=len(members),
        cpu_s=cpu_s,
        memory_bytes=sum(known) * _PAGE_BYTES if known or not members else None,
    )


def _resident_pages(pid: int) -> int | None:
    try:
        text = read(pid, "statm")
    except OSError:
        return None
    return int(text.split()[1]) if text else None
