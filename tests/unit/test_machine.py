"""What doctor sees of the machine, and that it leaves no trace of having looked."""

import os
import socket
from pathlib import Path

import pytest

from factoryd.adapters import machine
from factoryd.adapters.cgroup import Unavailable, cgroup_of, prepare_root
from factoryd.adapters.machine import (
    check_agent,
    check_directory,
    check_git,
    check_journal,
    check_pidfd,
    check_socket,
    check_sqlite,
    check_witness,
    look_at_cgroups,
)
from factoryd.core.config import AgentConfig
from tests.conftest import empty


def cgroups():
    """Return those that this process made, by the names it gives them."""
    own = cgroup_of(os.getpid())
    assert own is not None
    return sorted(name for name in os.listdir(own) if str(os.getpid()) in name)


def test_the_place_that_is_foretold_is_the_one_that_a_daemon_makes(daemon_name):
    before = cgroups()
    look = look_at_cgroups(daemon_name)
    assert cgroups() == before, "a cgroup was left behind"
    root = prepare_root(daemon_name)
    assert not isinstance(root, Unavailable)
    assert (look.root, look.problem) == (str(root / "agents"), None)
    assert look_at_cgroups(daemon_name).root == look.root, "also once it is there"
    assert look.layout in {"unified", "hybrid"}
    empty(root)


def test_where_no_cgroup_can_be_made_the_reason_is_the_kernels(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    look = look_at_cgroups("doctor-test")
    assert "Permission denied" in str(look.problem)
    assert look.root == ""


def test_pidfds_and_sqlite_are_good_enough_here():
    assert check_pidfd().state == "ok"
    assert check_sqlite().state == "ok"


def test_an_older_sqlite_is_too_old(monkeypatch):
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 36, 0))
    monkeypatch.setattr("sqlite3.sqlite_version", "3.36.0")
    check = check_sqlite()
    assert (check.state, "3.36.0" in check.detail, "3.37" in str(check.advice)) == (
        "failed",
        True,
        True,
    )


def test_a_kernel_without_pidfds_is_a_failure(monkeypatch):
    def missing(pid):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    check = check_pidfd()
    assert check.state == "failed"
    assert "Function not implemented" in check.detail


def test_what_the_kernel_tells_of_exits_is_found_out_and_not_read_off_its_version():
    knows = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
    check = check_witness()
    assert check.state == "ok"
    assert ("the kernel tells what became of it" in check.detail) is knows
    assert ("known from that alone" in check.detail) is not knows


@pytest.mark.parametrize(
    "answer",
    [OSError(25, "Inappropriate ioctl for device"), OSError(22, "Invalid argument"), None],
    ids=["no-such-question", "no-such-part", "not-told"],
)
def test_on_an_older_kernel_the_status_file_alone_tells_of_exits(monkeypatch, answer):
    def read_exit(descriptor):
        if answer is not None:
            raise answer

    monkeypatch.setattr(machine, "read_exit", read_exit)
    check = check_witness()
    assert check.state == "ok"
    assert "known from that alone" in check.detail
    assert "6.15" in check.detail


def test_directories_are_judged_without_being_made(tmp_path):
    private, shared, file = tmp_path / "private", tmp_path / "shared", tmp_path / "file"
    private.mkdir(mode=0o700)
    shared.mkdir()
    shared.chmod(0o777)
    file.touch()
    states = {
        path.name: check_directory("state directory", path)
        for path in (private, shared, file, tmp_path / "new" / "deep", file / "below")
    }
    assert {name: check.state.value for name, check in states.items()} == {
        "private": "ok",
        "shared": "failed",
        "file": "failed",
        "deep": "ok",
        "below": "failed",
    }
    assert "chmod go-w" in states["shared"].detail
    assert "will be made" in states["deep"].detail
    assert not (tmp_path / "new").exists()


def test_a_socket_whose_path_is_too_long_is_a_failure(tmp_path):
    assert check_socket(tmp_path / "control.sock").state == "ok"
    check = check_socket(tmp_path / ("x" * 100) / "control.sock")
    assert check.state == "failed"
    assert "107" in check.detail


def test_a_journal_is_there_when_somebody_takes_entries(tmp_path):
    path = str(tmp_path / "journal")
    assert check_journal(path).state == "warning"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        assert check_journal(path).state == "ok"


@pytest.mark.parametrize(
    ("program", "state", "said"),
    [
        ("sh", "ok", "/sh"),
        ("/bin/sh", "ok", "/bin/sh"),
        ("no-such-program", "failed", "no such program in the agent's PATH"),
        ("/no/such/program", "failed", "no such program"),
        ("/etc/passwd", "failed", "not executable"),
        ("./work.sh", "ok", "when an issue is worked on"),
        ("{workspace}/work.sh", "ok", "when an issue is worked on"),
    ],
)
def test_the_program_of_an_agent_is_found_or_the_reason_is_told(program, state, said):
    agent = AgentConfig(kind="command", command=(program,))
    check = check_agent("worker", agent, {"PATH": "/usr/bin:/bin"})
    assert (check.name, check.state.value) == ("agent worker", state)
    assert said in check.detail


def test_git_is_looked_for_in_the_path(tmp_path):
    assert check_git({"PATH": str(tmp_path)}).state == "failed"
    git = tmp_path / "git"
    git.touch(mode=0o755)
    assert check_git({"PATH": str(tmp_path)}).detail == str(git)
