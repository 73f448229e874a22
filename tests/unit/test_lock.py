"""One daemon per directory: the kernel keeps count."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from factoryd.adapters import lock as lock_module
from factoryd.adapters.lock import InstanceLock, read_holder
from factoryd.core.errors import AlreadyRunning, BadUsage
from factoryd.core.liveness import Holder

HOLD = """
import sys
from pathlib import Path
from factoryd.adapters.lock import InstanceLock
lock = InstanceLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_held_lock_is_refused_with_the_holders_pid(tmp_path):
    path = tmp_path / "lock"
    lock = InstanceLock(path)
    try:
        with pytest.raises(AlreadyRunning) as caught:
            InstanceLock(path)
    finally:
        lock.close()
    assert f"pid {os.getpid()}" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_status == 1
    InstanceLock(path).close()


def test_a_killed_holder_holds_nothing_and_its_pid_is_replaced(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}:"):
            InstanceLock(path)
    finally:
        holder.kill()
        holder.communicate()
    lock = InstanceLock(path)
    assert path.read_text() == f"{os.getpid()}\n"
    lock.close()


def test_a_longer_pid_of_the_past_leaves_no_digits_behind(tmp_path):
    path = tmp_path / "lock"
    path.write_text("99999999999999999\n")
    InstanceLock(path).close()
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_lock_whose_holder_has_not_said_who_it_is_is_refused_all_the_same(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="pid unknown"):
            InstanceLock(path)


def test_the_lock_is_private_and_no_program_inherits_it(tmp_path):
    path = tmp_path / "lock"
    lock = InstanceLock(path)
    assert path.stat().st_mode & 0o777 == 0o600
    code = "import os, sys; sys.exit(any(os.readlink(f'/proc/self/fd/{fd}') == sys.argv[1] "
    code += "for fd in (3, 4, 5, 6, 7, 8, 9) if os.path.islink(f'/proc/self/fd/{fd}')))"
    child = subprocess.run([sys.executable, "-c", code, str(path)], close_fds=False, check=False)
    assert child.returncode == 0
    lock.close()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("elsewhere")])
def test_what_cannot_be_locked_is_a_sentence(tmp_path, make):
    path = tmp_path / "lock"
    make(path)
    with pytest.raises(BadUsage, match=f"{path}: cannot be locked"):
        InstanceLock(path)
    with pytest.raises(BadUsage, match="No such file"):
        InstanceLock(tmp_path / "nowhere" / "lock")


# ----------------------------------------------------------------------------- only looked at


def test_a_look_at_a_lock_tells_its_holder_and_takes_nothing(tmp_path):
    path = tmp_path / "lock"
    assert read_holder(path) is None
    assert list(tmp_path.iterdir()) == []
    assert read_holder(tmp_path / "nowhere" / "lock") is None
    lock = InstanceLock(path)
    assert read_holder(path) == Holder(pid=os.getpid())
    lock.close()
    before = path.stat()
    assert read_holder(path) is None
    assert path.stat() == before
    InstanceLock(path).close()


def test_a_look_that_takes_its_time_keeps_nobody_from_starting(tmp_path):
    path = tmp_path / "lock"
    InstanceLock(path).close()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        looking = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        looking.start()
        lock = InstanceLock(path)
        looking.join()
    assert read_holder(path) == Holder(pid=os.getpid())
    lock.close()


def test_a_look_that_never_ends_is_a_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_BRIEFLY_S", 0.05)
    path = tmp_path / "lock"
    path.write_text("7\n")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(AlreadyRunning, match="pid 7"):
            InstanceLock(path)


def test_a_reaper_is_told_from_a_daemon(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setattr(lock_module, "_BRIEFLY_S", 0.05)
    lock = InstanceLock(path, reaping=True)
    try:
        assert read_holder(path) == Holder(pid=os.getpid(), reaping=True)
        with pytest.raises(
            AlreadyRunning, match=f"factoryd reap is at work here, pid {os.getpid()}"
        ):
            InstanceLock(path)
    finally:
        lock.close()
    lock = InstanceLock(path)
    assert read_holder(path) == Holder(pid=os.getpid())
    lock.close()


@pytest.mark.parametrize("text", ["", "x\n", "12345", "-7\n", "\n"])
def test_a_holder_that_has_not_said_who_it_is_is_a_holder(tmp_path, text):
    path = tmp_path / "lock"
    path.write_text(text)
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        holder = read_holder(path)
    assert holder == Holder(pid=12345 if text == "12345" else None)


def test_a_reaper_that_is_soon_done_is_waited_for(tmp_path):
    path = tmp_path / "lock"
    reaper = InstanceLock(path, reaping=True)
    done = threading.Timer(0.1, reaper.close)
    done.start()
    InstanceLock(path).close()
    done.join()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    path = tmp_path / "lock"
    path.symlink_to("elsewhere")
    with pytest.raises(BadUsage, match="cannot be locked"):
        read_holder(path)
