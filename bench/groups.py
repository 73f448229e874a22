"""A cgroup to run bare processes in, and how one is ended by hand."""

import os
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from factoryd.adapters.cgroup import cgroup_of

ENTER = ["sh", "-c", 'echo 0 >"$0" && exec "$@"']
"""Runs a command in the cgroup whose `cgroup.procs` is its first argument."""


@contextmanager
def bare_group() -> Generator[Path]:
    """Make a cgroup below our own; whatever is left in it at the end is killed with it."""
    own = cgroup_of(os.getpid())
    assert own is not None, "there is no cgroup2 file system here"
    group = Path(own, f"bench-{os.getpid()}")
    group.mkdir()
    try:
        yield group
    finally:
        end_group(group)


def run_in(group: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a command in a cgroup, in a session of its own."""
    return subprocess.Popen(
        [*ENTER, str(group / "cgroup.procs"), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def end_group(group: Path) -> None:
    """Kill all that runs in a cgroup and remove it; no such cgroup is no error."""
    if not group.exists():
        return
    (group / "cgroup.kill").write_text("1")
    while "populated 1" in (group / "cgroup.events").read_text():
        time.sleep(0.0002)
    below = [path for path in group.rglob("*") if path.is_dir()]
    for path in reversed([group, *below]):
        path.rmdir()
