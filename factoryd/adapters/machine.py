"""What this machine offers to a factory, looked at without leaving a trace."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from factoryd.adapters.cgroup import Mount, choose_root, parse_mount, parse_own
from factoryd.adapters.directories import find_fault
from factoryd.adapters.journald import JOURNAL_SOCKET, Journal
from factoryd.adapters.launch import resolve_program
from factoryd.adapters.witness import read_exit
from factoryd.core.checkup import CgroupLook, Check, Verdict
from factoryd.core.config import AgentConfig
from factoryd.core.errors import CannotStart
from factoryd.core.model import Command
from factoryd.core.template import find_literal

_MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""

_PROBED = 7
"""An exit status that no mistake yields."""

_OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables (https://www.sqlite.org/stricttables.html)."""


def look_at_cgroups(name: str) -> CgroupLook:
    """Return what `prepare_root` would come to for this process, which stays where it is.

    A cgroup is made and removed again, for only that tells what may be done here.
    """
    layout: str | None = None
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text()
        own = parse_own(Path("/proc/self/cgroup").read_text())
        mount = parse_mount(mountinfo, own) if own else None
        if own is None or mount is None:
            return CgroupLook(problem="no cgroup2 file system is mounted")
        layout = "hybrid" if " - cgroup " in mountinfo else "unified"
        return _look_below(mount, own, name, layout)
    except OSError as error:
        return CgroupLook(layout=layout, problem=f"{error.filename}: {error.strerror}")


def _look_below(mount: Mount, own: str, name: str, layout: str) -> CgroupLook:
    here = Path(mount.path_of(own) or mount.point)
    members = (here / "cgroup.procs").read_text().split()
    alone = here != Path(mount.point) and members == [str(os.getpid())]
    root = choose_root(here, name, alone=alone)
    with _probe(here) as probe:
        if not (probe / "cgroup.kill").exists():
            problem = "the kernel has no cgroup.kill; Linux 5.14 or later has"
            return CgroupLook(layout=layout, problem=problem)
        if not os.access(here / "cgroup.procs", os.W_OK):
            return CgroupLook(layout=layout, problem=f"{here} is not delegated to this user")
        # A daemon in a sub-leaf of its own may enable what its parent has; any other gets what is
        # enabled already.
        source = root if root == here.parent else probe
        controllers = frozenset((source / "cgroup.controllers").read_text().split())
    return CgroupLook(layout=layout, root=str(root / "agents"), controllers=controllers)


@contextmanager
def _probe(here: Path) -> Generator[Path]:
    """Make a cgroup that nothing ever enters, for as long as it is looked at."""
    probe = here / f"factoryd-doctor-{os.getpid()}"
    probe.mkdir()
    try:
        yield probe
    finally:
        probe.rmdir()


def check_pidfd() -> Check:
    """Return whether processes can be signalled without fear for their pid."""
    try:
        descriptor = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(descriptor, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Check(
            name="pidfd",
            state=Verdict.FAILED,
            detail=f"processes cannot be signalled safely: {error.strerror}",
            advice="use Linux 5.3 or later, and let the sandbox permit pidfd_open",
        )
    detail = f"processes are signalled through their pidfd (Linux {os.uname().release})"
    return Check(name="pidfd", state=Verdict.OK, detail=detail)


def check_witness() -> Check:
    """Return who tells how an adopted run has ended: its shim alone, or the kernel as well."""
    name, release = "exit statuses", os.uname().release
    if _is_exit_told():
        detail = (
            "kept by each run's shim in a file; where the shim of an adopted run is killed, the "
            f"kernel tells what became of it (PIDFD_GET_INFO, Linux {release})"
        )
    else:
        detail = (
            "kept by each run's shim in a file, and known from that alone: where the shim of an "
            f"adopted run is killed, nobody tells (no PIDFD_GET_INFO of exits in Linux {release}; "
            "6.15 and later have it)"
        )
    return Check(name=name, state=Verdict.OK, detail=detail)


def _is_exit_told() -> bool:
    """Ask about a child that has ended: kernels that know the question may not know of exits."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {_PROBED}"], {})
    try:
        descriptor = os.pidfd_open(child)
    except OSError:
        return False
    finally:
        os.waitpid(child, 0)
    try:
        return read_exit(descriptor) == _PROBED
    except OSError:
        return False
    finally:
        os.close(descriptor)


def check_sqlite() -> Check:
    """Return whether the ledger can be kept with this SQLite."""
    if sqlite3.sqlite_version_info >= _OLDEST_SQLITE:
        return Check(name="sqlite", state=Verdict.OK, detail=sqlite3.sqlite_version)
    oldest = ".".join(map(str, _OLDEST_SQLITE))
    return Check(
        name="sqlite",
        state=Verdict.FAILED,
        detail=f"{sqlite3.sqlite_version} is too old for the ledger",
        advice=f"use a Python that comes with SQLite {oldest} or later",
    )


def check_directory(name: str, directory: Path) -> Check:
    """Return whether a daemon of this user could keep its files there."""
    fault = find_fault(directory)
    if fault is not None:
        return Check(
            name=name,
            state=Verdict.FAILED,
            detail=fault,
            advice="mend that, or name another directory",
        )
    made = directory if directory.is_dir() else f"{directory}: will be made"
    return Check(name=name, state=Verdict.OK, detail=str(made))


def check_socket(path: Path) -> Check:
    """Return whether a control socket of this name can be made."""
    size = len(os.fsencode(path))
    if size > _MAX_SOCKET_PATH:
        return Check(
            name="control socket",
            state=Verdict.FAILED,
            detail=f"{path}: is {size} bytes long, a socket's path may have {_MAX_SOCKET_PATH}",
            advice="name a runtime directory with a shorter path",
        )
    return Check(name="control socket", state=Verdict.OK, detail=str(path))


def check_journal(path: str = JOURNAL_SOCKET) -> Check:
    """Return whether the output of agents can go to the journal."""
    try:
        Journal(path).close()
    except OSError as error:
        return Check(
            name="journal",
            state=Verdict.WARNING,
            detail=f"no journald takes entries ({error.strerror}): output of agents is in files only",
            advice="set journal = false in [output] if that is meant",
        )
    detail = "journald takes entries; a daemon whose standard error goes there sends its own too"
    return Check(name="journal", state=Verdict.OK, detail=detail)


def check_agent(role: str, agent: AgentConfig, environ: Mapping[str, str]) -> Check:
    """Return whether an agent's program is found, as far as that does not depend on an issue."""
    name = f"agent {role}"
    program = find_literal(agent.command[0])
    if program is None or ("/" in program and not program.startswith("/")):
        detail = f"{agent.command[0]}: is looked for when an issue is worked on"
        return Check(name=name, state=Verdict.OK, detail=detail)
    passed = {one: environ[one] for one in agent.pass_env if one in environ}
    command = Command(argv=(program,), env={**passed, **agent.env}, cwd="/")
    try:
        return Check(name=name, state=Verdict.OK, detail=resolve_program(command))
    except CannotStart as error:
        return Check(
            name=name,
            state=Verdict.FAILED,
            detail=str(error),
            advice=f"install it, or correct agents.{role}.command",
        )


def check_git(environ: Mapping[str, str]) -> Check:
    """Return whether git is there, for workspaces that are worktrees."""
    found = shutil.which("git", path=environ.get("PATH"))
    if found is None:
        return Check(
            name="git",
            state=Verdict.FAILED,
            detail="it is not found in the PATH, and workspaces are to be worktrees",
            advice="install git, or choose another workspace in [repos]",
        )
    return Check(name="git", state=Verdict.OK, detail=found)
