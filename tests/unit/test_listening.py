"""The control socket that systemd passes, as a process of its own is passed it."""

import json
import os
import socket
import subprocess
import sys

import pytest

PASSED = """
import json, os, sys
from pathlib import Path
descriptor, path, pid, count, names = sys.argv[1:]
import trio  # its descriptors are not to be taken for the one passed
if descriptor != "none":
    os.dup2(int(descriptor), 3)
    if descriptor != "3":
        os.close(int(descriptor))
pid = str(os.getpid()) if pid == "own" else pid
environ = {"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": names, "KEPT": "1"}
from factoryd.adapters.listening import open_control_socket
from factoryd.core.errors import BadUsage

async def main():
    try:
        listener = open_control_socket(Path(path), environ)
    except BadUsage as error:
        print(json.dumps({"error": str(error), "environ": environ}))
        return
    number = listener.socket.fileno()
    print(json.dumps({
        "at": listener.socket.getsockname(),
        "inode": os.fstat(number).st_ino,
        "inherited": os.get_inheritable(number),
        "environ": environ,
    }))
    await listener.aclose()

trio.run(main)
"""


def pass_on(held, path, pid="own", count="1", names="control"):
    """Return what a process says that was passed a descriptor as its number 3."""
    passed = () if held is None else (held.fileno(),)
    number = str(passed[0]) if passed else "none"
    done = subprocess.run(
        [sys.executable, "-c", PASSED, number, str(path), pid, count, names],
        pass_fds=passed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("environ") == {"KEPT": "1"}
    return said


@pytest.fixture
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("s") / "control.sock"


@pytest.fixture
def held(path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield listening


def test_the_socket_that_is_passed_is_taken_and_its_file_left_alone(held, path):
    file = path.stat()
    said = pass_on(held, path)
    assert said == {
        "at": str(path),
        "inode": os.fstat(held.fileno()).st_ino,
        "inherited": False,
    }
    assert path.stat() == file


def test_another_spelling_of_its_path_is_the_same_path(held, path, tmp_path):
    (tmp_path / "var").symlink_to(path.parent)
    assert pass_on(held, tmp_path / "var" / "control.sock")["at"] == str(path)


@pytest.mark.parametrize(("pid", "count"), [("1", "1"), ("", "1"), ("own", "0"), ("own", "x")])
def test_what_was_passed_to_another_process_is_not_ours(held, path, pid, count):
    file = path.stat().st_ino
    said = pass_on(held, path, pid, count)
    assert said["inode"] != os.fstat(held.fileno()).st_ino
    assert path.stat().st_ino != file


def test_without_one_the_socket_is_made(path):
    assert pass_on(None, path, "", "", "")["at"] == str(path)


@pytest.mark.parametrize(
    ("kind", "listens", "reason"),
    [
        (socket.SOCK_DGRAM, False, "no Unix stream socket that listens"),
        (socket.SOCK_STREAM, False, "no Unix stream socket that listens"),
        (socket.SOCK_SEQPACKET, True, "no Unix stream socket that listens"),
    ],
)
def test_a_socket_that_cannot_be_the_control_socket_is_refused(path, kind, listens, reason):
    with socket.socket(socket.AF_UNIX, kind) as useless:
        useless.bind(str(path))
        if listens:
            useless.listen()
        said = pass_on(useless, path, names="mine")
    assert said["error"] == f"what systemd passes as mine is {reason}: mend its socket unit"


def test_a_socket_of_the_network_is_refused(path):
    with socket.socket(socket.AF_INET) as network:
        network.bind(("127.0.0.1", 0))
        network.listen()
        assert "no Unix stream socket" in pass_on(network, path)["error"]


def test_a_socket_that_listens_elsewhere_is_refused_with_what_to_write(held, path):
    wanted = path.with_name("other.sock")
    error = pass_on(held, wanted, names="")["error"]
    assert str(path) in error
    assert f"ListenStream={wanted}" in error


def test_a_file_is_no_socket(path, tmp_path):
    with (tmp_path / "file").open("wb") as file:
        assert "is no socket" in pass_on(file, path)["error"]


def test_more_than_one_is_refused_by_their_names(held, path):
    error = pass_on(held, path, count="2", names="control")["error"]
    assert "passes control, unknown" in error


def test_what_is_announced_and_not_there_is_refused(path):
    assert "passes as control is no socket" in pass_on(None, path)["error"]
