"""What a shim is told to limit, and that it does."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from factoryd.adapters import rlimits
from factoryd.adapters.launch import SHIM, parse_shim
from factoryd.adapters.rlimits import count_threads, nice_level, shim_limits
from factoryd.core.model import Limits

NOBODY = 1_000_000_000 + os.getpid()
"""A user that nobody else is: limits on processes count all that a user has."""

as_nobody = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
TOOL = [sys.executable, "-S", "-E", "-c"]


@pytest.mark.parametrize(
    ("weight", "level"),
    [(100, 0), (10_000, 0), (101, 0), (90, 0), (80, 1), (50, 3), (10, 10), (2, 18), (1, 19)],
)
def test_a_weight_is_the_nice_level_that_the_kernel_weighs_alike(weight, level):
    assert nice_level(weight) == level


def test_no_weight_asks_for_more_than_an_equal_share_or_more_than_the_nicest():
    levels = [nice_level(weight) for weight in range(1, 10_001)]
    assert levels == sorted(levels, reverse=True)
    assert (min(levels), max(levels)) == (0, 19)


def test_without_limits_the_shim_is_told_nothing():
    assert shim_limits(Limits()) == ()
    assert shim_limits(Limits(cpu_weight=200)) == ()


def test_limits_are_told_in_the_units_of_the_shell():
    options = shim_limits(Limits(memory_max_bytes=64 << 20, cpu_weight=50))
    assert options == ("--data", "65536", "--nice", "3")


def test_processes_are_counted_on_top_of_those_the_user_has(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(rlimits, "count_threads", lambda uid: {1000: 40}[uid])
    assert shim_limits(Limits(pids_max=64)) == ("--processes", "104")


def test_root_is_not_bound_by_a_limit_on_processes_and_so_gets_none(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert shim_limits(Limits(pids_max=64)) == ()


def test_the_limit_on_open_files_is_the_one_the_daemon_was_started_with(monkeypatch):
    monkeypatch.setattr(rlimits, "INHERITED_FILES", 512)
    assert shim_limits(Limits()) == ("--files", "512")
    monkeypatch.setattr(rlimits, "INHERITED_FILES", resource.RLIM_INFINITY)
    assert shim_limits(Limits()) == ("--files", "unlimited")


def test_the_threads_of_a_user_are_counted():
    threads = len(os.listdir("/proc/self/task"))
    assert count_threads(os.getuid()) >= threads
    assert count_threads(4_000_000_000) == 0


# ------------------------------------------------------------------------------------- the shim


@pytest.fixture
def place():
    """A directory that anybody can write to."""
    path = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def shim(place, *options, agent):
    """Return a shim's command line, for a user who may not read the shim itself."""
    names = ("--agent-name", "a", "--run", "r", *options, "--status", str(place / "status"))
    return ["/bin/sh", "-c", SHIM.read_text(), "agent-shim", *names, "--", *agent]


SHOWN = """
import json, os, resource as r
names = ("DATA", "NPROC", "NOFILE")
limits = [r.getrlimit(getattr(r, "RLIMIT_" + name)) for name in names]
print(json.dumps([*limits, os.getpriority(os.PRIO_PROCESS, 0)]))
"""


def test_the_shim_limits_its_agent_and_nothing_of_it_is_in_the_agents_way(place):
    options = ("--data", "1048576", "--processes", "5000", "--files", "100", "--nice", "7")
    argv = shim(place, *options, agent=[*TOOL, SHOWN])
    done = subprocess.run(argv, capture_output=True, check=True)
    _, nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    data, processes, files, level = json.loads(done.stdout)
    assert (data, processes, files) == ([1 << 30] * 2, [5000] * 2, [100, nofile])
    assert level == min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)
    assert done.stderr == b""
    assert json.loads((place / "status").read_text()) == {"status": 0}


@as_nobody
def test_a_limit_that_is_lower_already_stays_as_it_is(place):
    argv = shim(place, "--data", str(1 << 30), agent=["/bin/sh", "-c", "ulimit -d"])
    lower = ["/bin/sh", "-c", 'ulimit -d 1048576; exec "$@"', "sh", *argv]
    done = subprocess.run(lower, user=NOBODY, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"1048576\n", b"")


def test_a_shims_command_line_is_read_back_with_every_option_there_is():
    options = ("--files", "100", "--data", "1", "--processes", "2", "--nice", "3", "--procs", "p")
    argv = ("/bin/sh", str(SHIM), "--agent-name", "a", *options, "--status", "s", "--", "x", "--y")
    assert parse_shim(argv) == {
        "--agent-name": "a",
        "--files": "100",
        "--data": "1",
        "--processes": "2",
        "--nice": "3",
        "--procs": "p",
        "--status": "s",
    }


@as_nobody
def test_an_agent_that_has_used_up_all_processes_has_its_status_left_all_the_same(place):
    for name in ("up", "go"):
        os.mkfifo(place / name, 0o666)
        (place / name).chmod(0o666)
    waits = 'cd "$0" && echo up >up && read go <go; exit 7'
    argv = shim(place, agent=["/bin/sh", "-c", waits, str(place)])
    limit = f'ulimit -p {count_threads(NOBODY) + 2}; exec "$@"'  # the shim and the agent
    process = subprocess.Popen(["/bin/sh", "-c", limit, "sh", *argv], user=NOBODY)
    (place / "up").read_text()
    others = [subprocess.Popen(["/bin/sleep", "600"], user=NOBODY) for _ in range(2)]
    (place / "go").write_text("now\n")
    assert process.wait() == 7
    assert json.loads((place / "status").read_text()) == {"status": 7}
    for other in others:
        other.kill()
        other.wait()


@as_nobody
def test_a_user_that_is_not_root_is_bound_by_the_limit_on_processes(place):
    forks = "for n in 1 2 3 4 5 6; do sleep 0.3 & echo $n; done"
    limit = count_threads(NOBODY) + 6
    argv = shim(place, "--processes", str(limit), agent=["/bin/sh", "-c", forks])
    done = subprocess.run(argv, user=NOBODY, capture_output=True, check=False)
    assert done.stdout.split() == [b"1", b"2", b"3", b"4"], "the shim and the agent are two of six"
    assert b"fork" in done.stderr
