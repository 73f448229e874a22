"""Fixtures everybody may use. The leak check is automatic."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from factoryd.adapters.cgroup import Unavailable, cgroup_of, prepare_root
from factoryd.adapters.pidfd import PidFd, open_verified
from factoryd.adapters.proc import Stat, list_pids, read_argv, read_stat

_numbers = itertools.count(1)

# An example may take as long as others let it: this machine is not the tests' alone.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start can be interrupted


def children_left() -> bool:
    """Say whether a child, running or zombie, is still ours to wait for."""
    try:
        os.waitid(os.P_ALL, -1, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_children() -> list[str]:
    """Kill and reap what a test has left, so that the next one starts clean; return what it was."""
    if not children_left():
        return []
    names = []
    while left := [stat for pid in list_pids() if (stat := read_stat(pid)) and is_ours(stat)]:
        for stat in left:
            names.append(f"{stat.pid} {' '.join(read_argv(stat.pid)) or '(ended)'}")
            child = open_verified(stat.identity)
            if isinstance(child, PidFd):
                with child:
                    child.send(signal.SIGKILL)
            os.waitid(os.P_PID, stat.pid, os.WEXITED)
    return names


def is_ours(stat: Stat) -> bool:
    """Say whether a process is a child of this one."""
    return stat.ppid == os.getpid()


def descriptors() -> dict[int, str]:
    """Return what is open, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = str(Path("/proc/self/fd", name).readlink())
    return found


def own_roots() -> list[Path]:
    """Return the cgroup directories that tests of this session have made and not removed."""
    own = cgroup_of(os.getpid())
    return sorted(Path(own).glob(f"factoryd-test-{os.getpid()}-*")) if own else []


@pytest.fixture(autouse=True)
def nothing_outlives_its_test() -> Iterator[None]:
    before = descriptors()
    yield
    left_alive = end_children()
    assert not left_alive, "children are left"
    left = {fd: what for fd, what in descriptors().items() if fd not in before}
    assert len(descriptors()) <= len(before), f"descriptors are left: {left}"
    assert not own_roots(), "cgroups are left"


@pytest.fixture
def daemon_name() -> Iterator[str]:
    """A name for a daemon's cgroups that nobody else has.

    Whatever is left in them at the end is killed and makes the test fail.
    """
    name = f"test-{os.getpid()}-{next(_numbers)}"
    yield name
    leaves = [
        str(leaf)
        for root in own_roots()
        if root.name == f"factoryd-{name}"
        for leaf in empty(root)
        if len(leaf.relative_to(root).parts) > 2
    ]
    assert not leaves, "the test left cgroups of agents"


def empty(root: Path) -> list[Path]:
    """Kill everything below a cgroup, remove it and return the cgroups that were there.

    What a killed daemon was just starting may enter late, so all is done until it holds.
    """
    found = [root, *(path for path in root.rglob("*") if path.is_dir())]
    until = time.monotonic() + 5
    while root.is_dir():
        assert time.monotonic() < until, f"{root} cannot be emptied"
        (root / "cgroup.kill").write_text("1")
        if "populated 0" in (root / "cgroup.events").read_text():
            with contextlib.suppress(OSError):
                for path in reversed([each for each in found if each.is_dir()]):
                    path.rmdir()
        time.sleep(0.001)
    return found


@pytest.fixture
def cgroup_root(daemon_name: str) -> Path:
    """The prepared root of a daemon's cgroups; where there can be none, the test fails."""
    root = prepare_root(daemon_name)
    assert not isinstance(root, Unavailable), root.reason
    return root
