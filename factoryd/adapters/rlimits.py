"""A run's limits where no controller holds them: resource limits and a nice level, set by its shim.

They are for each process, or for each user, and so hold less than a controller does.
"""

import math
import os
import resource

from factoryd.adapters.proc import list_pids, read_stat
from factoryd.core.model import Limits

INHERITED_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
"""The soft limit on open files that this process was started with, which is what agents get.

Agents may use `select`, which no more than 1024 suit; a daemon raises the limit for itself alone.
"""

_PLAIN_WEIGHT = 100
_STEP = 1.25
"""What one nice level is worth: the kernel's weights of two levels differ by this factor."""

_NICEST = 19


def shim_limits(limits: Limits) -> tuple[str, ...]:
    """Return the options that have a shim set what of these limits can be set so.

    Blocks for reads of /proc when there is a limit on processes.
    """
    options: list[str] = []
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] != INHERITED_FILES:
        options += ["--files", _spell(INHERITED_FILES)]
    if limits.memory_max_bytes is not None:
        options += ["--data", str(limits.memory_max_bytes >> 10)]
    if limits.pids_max is not None and os.getuid() != 0:
        # It counts all that the user has; root it does not bind.
        options += ["--processes", str(count_threads(os.getuid()) + limits.pids_max)]
    if limits.cpu_weight is not None and (level := nice_level(limits.cpu_weight)) > 0:
        options += ["--nice", str(level)]
    return tuple(options)


def _spell(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def nice_level(weight: int) -> int:
    """Return the nice level of a cpu weight (1..10000): 0 for 100 and more, up to 19 for less."""
    level = round(math.log(_PLAIN_WEIGHT / weight, _STEP))
    return min(max(level, 0), _NICEST)


def count_threads(uid: int) -> int:
    """Return how many threads a user has, which is what RLIMIT_NPROC is compared with."""
    total = 0
    for pid in list_pids():
        try:
            owner = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 (speed)
        except OSError:
            continue
        if owner == uid and (stat := read_stat(pid)) is not None:
            total += stat.threads
    return total
