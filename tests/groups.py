"""Looking into cgroups while what is in them comes and goes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def walk_groups(root: Path) -> Iterator[Path]:
    """Yield a cgroup and all below it; one that goes meanwhile is passed over."""
    for path, _, _ in os.walk(root):
        yield Path(path)


def list_pids_below(root: Path) -> list[int]:
    """Return what runs in a cgroup and below it."""
    pids: list[int] = []
    for group in walk_groups(root):
        with suppress(OSError):
            pids += map(int, (group / "cgroup.procs").read_text().split())
    return pids
