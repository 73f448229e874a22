"""The controllers of cgroups: switched on, told a run's limits, asked what a run used."""

import contextlib
import logging
from pathlib import Path

from factoryd.core.model import Limits, OutOfMemory, Usage

logger = logging.getLogger(__name__)

WANTED = frozenset({"memory", "pids", "cpu"})

_NO_LIMIT = "max"


def find_controllers(root: Path, started_in: Path) -> frozenset[str]:
    """Return the controllers that leaves below a root can have, after switching them on.

    None where a cgroup of others would have to change for it. A unit's cgroup that has controllers
    on and something alive below it takes no process of its own any more: the unit could not be
    restarted into it, and the agents of a daemon that crashed would be lost. So the daemon must
    have been started below its root (`DelegateSubgroup=daemon`), or the root be one it has made
    below a cgroup that has controllers on for all its children. What cannot be switched on is
    logged, and its limits are then kept by other means.
    """
    if started_in not in (root / "daemon", root.parent):
        logger.info("no controllers are used: %s is where daemons are started", root)
        return frozenset()
    offered = WANTED & _read_words(root / "cgroup.controllers")
    with contextlib.suppress(OSError):
        if (root / "cgroup.procs").read_text().strip():
            logger.warning("no controllers are used: processes of others are in %s", root)
            return frozenset()
    usable = switch_on(root / "agents", switch_on(root, offered))
    if usable < offered:
        missing = " ".join(sorted(offered - usable))
        logger.warning("these controllers cannot be switched on in %s: %s", root, missing)
    return usable


def switch_on(directory: Path, wanted: frozenset[str]) -> frozenset[str]:
    """Have the children of a cgroup controlled, and return by which of the controllers wanted."""
    control = directory / "cgroup.subtree_control"
    for name in sorted(wanted - _read_words(control)):
        with contextlib.suppress(OSError):
            control.write_text(f"+{name}")
    return wanted & _read_words(control)


def _read_words(path: Path) -> frozenset[str]:
    return frozenset((_read(path) or "").split())


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def set_limits(leaf: Path, limits: Limits) -> Limits:
    """Limit a leaf, and return those of the limits that no controller of it can hold.

    `memory.oom.group` stays 0: of a tree that exceeds its memory the kernel kills one process, the
    greediest. More often than not that is a compiler or a test run and not the agent, who sees it
    fail, can do it in a smaller way and can say so; killed with it, it could do neither, and the
    shim could not leave its status. What remains of a tree ends with its scope anyway.
    """
    memory, pids, weight = limits.memory_max_bytes, limits.pids_max, limits.cpu_weight
    return Limits(
        memory_max_bytes=None if _limit(leaf / "memory.max", memory) else memory,
        pids_max=None if _limit(leaf / "pids.max", pids) else pids,
        cpu_weight=None if _limit(leaf / "cpu.weight", weight) else weight,
    )


def _limit(file: Path, value: int | None) -> bool:
    """Write a limit to its file; False when the leaf does not take it."""
    if value is None:
        return True
    try:
        if not file.exists():
            return False
        file.write_text(str(value))
    except OSError:
        return False
    return True


def read_spent(leaf: Path) -> Usage:
    """Return what a leaf's tree used in all, as its files tell; to be asked before its removal.

    The kernel's log is not looked at: `out_of_memory` is without victims.
    """
    cpu = _read_fields(leaf / "cpu.stat").get("usage_usec")
    return Usage(
        processes=0,
        cpu_s=None if cpu is None else cpu / 1e6,
        memory_bytes=0,
        peak_processes=_read_number(leaf / "pids.peak"),
        peak_memory_bytes=_read_number(leaf / "memory.peak"),
        out_of_memory=_read_out_of_memory(leaf),
    )


def _read_out_of_memory(leaf: Path) -> OutOfMemory | None:
    events = _read_fields(leaf / "memory.events")
    kills = events.get("oom_kill", 0)
    if kills == 0:
        return None
    own = events.get("oom", 0) > 0  # else a limit above this one was reached, or the machine's
    return OutOfMemory(kills=kills, limit_bytes=_read_number(leaf / "memory.max") if own else None)


def _read_fields(path: Path) -> dict[str, int]:
    """Return a file of `name number` lines; empty when it does not exist."""
    pairs = (line.split() for line in (_read(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _read_number(path: Path) -> int | None:
    text = (_read(path) or _NO_LIMIT).strip()
    return int(text) if text.isdecimal() else None
