"""Who is stopped one by one, and who goes on again."""

import os
import signal
import subprocess

import msgspec
import pytest

from factoryd.adapters.pidfd import PidFd, identify, open_verified
from factoryd.adapters.proc import read_stat
from factoryd.adapters.standstill import Standstill


@pytest.fixture
def sleepers():
    processes = [subprocess.Popen(["/bin/sleep", "600"]) for _ in range(2)]
    yield [process.pid for process in processes]
    for process in processes:
        process.kill()
        process.wait()


def who(pid):
    identity = identify(pid)
    assert identity is not None
    return identity


def stat(pid):
    found = read_stat(pid)
    assert found is not None
    return found


def send(pid, number):
    process = open_verified(who(pid))
    assert isinstance(process, PidFd)
    with process:
        process.send(number)


def wait_state(pid, states):
    while stat(pid).state not in states:
        os.sched_yield()


def stats(*pids):
    return [stat(pid) for pid in pids]


def test_those_that_move_are_stopped_and_go_on_again(tmp_path, sleepers):
    standstill = Standstill(str(tmp_path))
    assert standstill.stop(stats(*sleepers)) == {who(pid) for pid in sleepers}
    for pid in sleepers:
        wait_state(pid, "T")
    assert standstill.stop(stats(*sleepers)) == set(), "all stand still"
    standstill.end()
    for pid in sleepers:
        wait_state(pid, "SR")
    assert list(tmp_path.iterdir()) == []


def test_one_that_had_stopped_before_is_none_of_ours(tmp_path, sleepers):
    before, moving = sleepers
    send(before, signal.SIGSTOP)
    wait_state(before, "T")
    standstill = Standstill(str(tmp_path))
    assert standstill.stop(stats(*sleepers)) == {who(moving)}
    wait_state(moving, "T")
    standstill.end()
    wait_state(moving, "SR")
    assert stat(before).state == "T"


def test_the_next_daemon_knows_who_was_stopped(tmp_path, sleepers):
    Standstill(str(tmp_path)).stop(stats(*sleepers))
    with (tmp_path / "stopped").open("ab") as file:
        file.write(b'{"pid": 1, "start')  # it died while it wrote
    for pid in sleepers:
        wait_state(pid, "T")
    Standstill(str(tmp_path)).end()
    for pid in sleepers:
        wait_state(pid, "SR")


def test_a_pid_that_is_anothers_by_now_is_left_alone(tmp_path, sleepers):
    old, new = sleepers
    send(new, signal.SIGSTOP)
    wait_state(new, "T")
    recycled = msgspec.structs.replace(who(new), start_ticks=who(new).start_ticks - 1)
    standstill = Standstill(str(tmp_path))
    standstill.stop([msgspec.structs.replace(stat(new), state="S", start_ticks=1)])
    (tmp_path / "stopped").write_bytes(msgspec.json.encode(recycled) + b"\n")
    standstill.end()
    assert stat(new).state == "T"
    assert stat(old).state != "T"


def test_the_daemon_and_its_ancestors_are_never_stopped(tmp_path):
    family = stats(os.getpid(), os.getppid())
    assert Standstill(str(tmp_path)).stop(family) == set()


def test_where_nothing_can_be_remembered_nothing_fails(sleepers):
    standstill = Standstill("")
    standstill.stop(stats(*sleepers))
    standstill.end()


def test_who_waits_in_the_kernel_stands_still_once_it_was_told_to(tmp_path, sleepers):
    """As a shell does whose child was stopped between its fork and its program."""
    standstill = Standstill(str(tmp_path))
    waiting = [msgspec.structs.replace(one, state="D") for one in stats(*sleepers)]
    assert standstill.stop(waiting) == {who(pid) for pid in sleepers}
    assert standstill.stop(waiting) == set()
    standstill.end()
