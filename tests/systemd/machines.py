"""Machines for tests: a Debian each that systemd boots in a container, entered from outside."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from factoryd.adapters.cgroup import cgroup_of
from factoryd.adapters.pidfd import PidFd, open_verified
from factoryd.adapters.proc import Stat, read_argv, read_stat
from factoryd.core.model import ProcessIdentity
from tests.conftest import empty

SUITES = ("bookworm", "trixie")
SYSTEM_ROOT = Path(__file__).with_name("system-root")
PACKAGES = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container"}
"""The Debian package of each program that makes or boots a machine."""

WITHIN_S = 60.0
"""A deadline for what takes a second on an idle machine."""


def why_none() -> str:
    """Return why no machine can be had here, "" where one can."""
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if missing:
        return f"missing: run .ci/need {' '.join(missing)}"
    return "" if os.geteuid() == 0 else "only root can boot a machine"


_REQUIRED = os.environ.get("CI") == "true"
_WHY_NONE = why_none()

BOOTED = [
    pytest.mark.booted,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not _REQUIRED and bool(_WHY_NONE), reason=_WHY_NONE),
]
"""The marks of a test that needs the machines; without, it is skipped, except in CI."""


def wait_until(holds: Callable[[], object], otherwise: str, within_s: float = WITHIN_S) -> None:
    """Return once something holds; it is looked at again and again. `otherwise` tells if not."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"{otherwise} within {within_s:g} s"
        time.sleep(0.05)


_MEMORY = Path("/sys/fs/cgroup/memory")
"""Where version 1 has the memory controller, which containers of version 2 cannot have then."""

_IN_CGROUP = ("/bin/sh", "-eu", "-c", 'echo 0 >"$1"; shift; exec "$@"', "sh")
"""Before the `cgroup.procs` of a cgroup and a command: runs the command there."""


class Process(NamedTuple):
    """One that runs in a machine, with the pid it has here."""

    identity: ProcessIdentity
    cgroup: str
    argv: Sequence[str]
    environ: Sequence[str]


class Machine:
    """A Debian with a root of its own, which outlives its boots, and cgroups of its own."""

    def __init__(self, suite: str, root: Path, cgroup: Path) -> None:
        self.suite = suite
        self.root = root
        self._cgroup = cgroup
        self._container: subprocess.Popen[bytes] | None = None
        self._init: Stat | None = None

    def boot(self) -> None:
        """Boot; return once systemd says that it is up."""
        notices = self.root.with_name("notices")
        notices.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
            heard.bind(str(notices))
            heard.settimeout(WITHIN_S)
            self._container = self._start(notices)
            words: dict[str, str] = {}
            while "READY" not in words:
                lines = heard.recv(1 << 16).decode().splitlines()
                words |= dict(line.split("=", 1) for line in lines)
        self._init = read_stat(int(words["X_NSPAWN_LEADER_PID"]))

    def _start(self, notices: Path) -> subprocess.Popen[bytes]:
        command = [
            # It makes its cgroups in the one it is in.
            *(*_IN_CGROUP, str(self._cgroup / "cgroup.procs")),
            *("setpriv", "--pdeathsig=KILL", "systemd-nspawn", "--quiet", "--boot"),
            *("--directory", str(self.root), "--machine", self.name, "--notify-ready=yes"),
            *("--register=no", "--keep-unit", "--private-network", "--console=pipe"),
        ]
        environ = {
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": str(notices),
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with self.root.with_name("console").open("ab") as console:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environ,
            )

    @property
    def name(self) -> str:
        """Return what no other machine here is called."""
        return f"{self.suite}-{os.getpid()}"

    @property
    def _leader(self) -> int:
        """Return the process that is PID 1 in there."""
        assert self._init is not None, f"{self.name} is not booted"
        return self._init.pid

    def cut_power(self) -> None:
        """End all of it at once; the root is left as it was at that moment."""
        if self._container is None:
            return
        init = open_verified(self._init.identity) if self._init else None
        if isinstance(init, PidFd):
            with init:
                init.send(signal.SIGKILL)
        else:
            self._container.kill()
        self._container.wait(WITHIN_S)
        self._container, self._init = None, None
        for left in Path("/run/systemd/nspawn/propagate").glob(self.name):
            left.rmdir()

    @property
    def entering(self) -> list[str]:
        """Return the words before a command that make it run in the machine, as root."""
        inside = self.cgroups / "init.scope" / "cgroup.procs"
        return [*_IN_CGROUP, str(inside), "nsenter", "--target", str(self._leader), "--all"]

    def call(
        self, *words: str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine to its end, as root or a user."""
        entering = self.entering
        if user is not None:
            entering += ["runuser", "--user", user, "--"]
        entering += ["env", *(f"{name}={value}" for name, value in (env or {}).items())]
        return subprocess.run(
            [*entering, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=2 * WITHIN_S,
            env={"PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"},
        )

    def run(
        self, *words: str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a program as `call` does and return what it prints; a failure is told in its words."""
        done = self.call(*words, user=user, env=env)
        said = f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}: {said}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """Return a path of the machine as it is reached from here, while it is booted."""
        return Path(f"/proc/{self._leader}/root{inside}")

    def put(self, inside: str, text: str) -> None:
        """Write a file; its directories are made."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @property
    def cgroups(self) -> Path:
        """Return the cgroup that the machine takes for the root of all."""
        return self._cgroup / "payload"

    def processes(self) -> Iterator[Process]:
        """Yield all that runs."""
        for directory, _, _ in os.walk(self.cgroups):
            for pid in map(int, _read(Path(directory, "cgroup.procs")).split()):
                if (stat := read_stat(pid)) is not None:
                    environ = _read(Path("/proc", str(pid), "environ")).split("\0")
                    cgroup = os.path.relpath(directory, self.cgroups)
                    yield Process(stat.identity, cgroup, read_argv(pid), environ)

    def limit_memory(self, processes: Iterable[ProcessIdentity], limit: int) -> None:
        """Let processes and what they start have so many bytes, where version 1 has the memory."""
        if _MEMORY.is_dir():
            self._memory.mkdir()
            (self._memory / "memory.limit_in_bytes").write_text(str(limit))
            for one in processes:
                (self._memory / "cgroup.procs").write_text(str(one.pid))

    def out_of_memory(self, cgroup: str) -> int:
        """Return how many processes of those, else of a cgroup, the kernel has killed for it."""
        events = self.cgroups / cgroup / "memory.events"
        if self._memory.is_dir():
            events = self._memory / "memory.oom_control"
        (count,) = re.findall(r"^oom_kill (\d+)", events.read_text(), re.MULTILINE)
        return int(count)

    @property
    def _memory(self) -> Path:
        return Path(f"{_MEMORY}{_own_groups()['memory']}", self._cgroup.name)


@contextmanager
def a_machine(suite: str, directory: Path) -> Iterator[Machine]:
    """Boot a Debian with a root below `directory`; nothing of it is left in the end."""
    made = subprocess.run([SYSTEM_ROOT, suite], stdout=subprocess.PIPE, text=True, check=True)
    root = directory / "root"
    subprocess.run(["cp", "-a", "--reflink=auto", made.stdout.strip(), root], check=True)
    own = cgroup_of(os.getpid())
    assert own is not None, "no cgroup2 file system is mounted"
    cgroup = Path(own, f"factoryd-test-{os.getpid()}-{suite}")
    cgroup.mkdir()
    machine = Machine(suite, root, cgroup)
    try:
        machine.boot()
        yield machine
    finally:
        machine.cut_power()
        empty(cgroup)
        for twin in _twins(cgroup.name):
            twin.rmdir()


def _twins(name: str) -> Iterator[Path]:
    """Yield, the innermost first, what was made beside a cgroup where version 1 is mounted too."""
    for hierarchy, beside in _own_groups().items():
        top = Path(f"/sys/fs/cgroup/{hierarchy}{beside}", name)
        for directory, _, _ in os.walk(top, topdown=False):
            yield Path(directory)


def _own_groups() -> dict[str, str]:
    """Return the cgroups of this process in the hierarchies of version 1 that have to do with it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    return {
        name.removeprefix("name="): own[name] for name in ("memory", "name=systemd") if name in own
    }


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
