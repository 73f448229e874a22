"""Control groups (version 2): where ours may live, and what one leaf can be asked."""

import contextlib
import errno
import math
import os
import select
from collections.abc import Collection
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

import trio

from factoryd.adapters.controllers import read_spent, set_limits, switch_on
from factoryd.adapters.kernel_log import find_victims
from factoryd.adapters.proc import Stat, read, read_stats
from factoryd.adapters.usage import measure
from factoryd.core.model import Data, Limits, Usage, Victim

LEAF_MISMATCH = "leaf identity mismatch"

_NO_LIMITS = Limits()
_GONE = (errno.ENOENT, errno.ENODEV)
_NO_WAIT_ALONE_S = (0.001, 0.002, 0.004, 0.008, 0.016, math.inf)
"""The kernel holds back a second notice within 10 ms, so the first looks do not wait for one."""


class Unavailable(Data, frozen=True, kw_only=True):
    """Why no cgroups can be made here."""

    reason: str


class Mount(Data, frozen=True, kw_only=True):
    """Where the cgroup2 hierarchy shows in the file system, and which part of it does."""

    point: str
    root: str

    def path_of(self, cgroup: str) -> str | None:
        """Return the directory of a cgroup named as in `/proc/PID/cgroup`; None if not shown."""
        root = self.root.rstrip("/")
        inside = cgroup.removeprefix(root)
        if not f"{cgroup}/".startswith(f"{root}/") or inside.startswith("/.."):
            return None
        return (self.point + inside).rstrip("/")


def parse_mount(mountinfo: str, own: str) -> Mount | None:
    """Return the cgroup2 mount that shows the cgroup `own`, from `/proc/self/mountinfo`."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if right.split(" ", 1)[0] != "cgroup2":
            continue
        root, point = (_unescape(field) for field in left.split(" ")[3:5])
        mount = Mount(point=point, root=root)
        if mount.path_of(own) is not None:
            return mount
    return None


def _unescape(field: str) -> str:
    """Undo mountinfo's octal escapes (space, tab, newline, backslash)."""
    for code, char in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        field = field.replace("\\" + code, char)
    return field


def parse_own(text: str) -> str | None:
    """Return the cgroup2 entry of `/proc/PID/cgroup`."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


@cache
def _mount() -> Mount | None:
    own = parse_own(Path("/proc/self/cgroup").read_text())
    return parse_mount(Path("/proc/self/mountinfo").read_text(), own) if own else None


def cgroup_of(pid: int) -> str | None:
    """Return the directory of the cgroup a process is in; None when it is gone or not shown."""
    mount, text = _mount(), read(pid, "cgroup")
    own = parse_own(os.fsdecode(text)) if text else None
    return mount.path_of(own) if mount and own else None


def prepare_root(name: str) -> Path | Unavailable:
    """Return the directory that holds the daemon's leaves in `agents/`, made if it was missing.

    A cgroup that is all ours, as a service's is, becomes the root, with the daemon itself in
    `daemon/`. In any other the root is `factoryd-<name>` below it and the daemon stays where it
    is. The same daemon finds the same root at its next start.
    """
    mount, here = _mount(), cgroup_of(os.getpid())
    if mount is None or here is None:
        return Unavailable(reason="no cgroup2 file system is mounted")
    own = Path(here)
    try:
        alone = own != Path(mount.point) and _is_alone(own)
        root = choose_root(own, name, alone=alone)
        (root / "agents").mkdir(parents=True, exist_ok=True)
        if not (root / "agents" / "cgroup.kill").exists():
            return Unavailable(reason="the kernel has no cgroup.kill; Linux 5.14 or later has")
        if not os.access(own / "cgroup.procs", os.W_OK):
            return Unavailable(reason=f"{own} is not delegated to this user")
        if alone and root == own:
            (own / "daemon").mkdir(exist_ok=True)
            (own / "daemon" / "cgroup.procs").write_text("0")
    except OSError as error:
        return Unavailable(reason=f"{error.filename or own}: {error.strerror}")
    return root


def _is_alone(own: Path) -> bool:
    return (own / "cgroup.procs").read_text().split() == [str(os.getpid())]


def choose_root(own: Path, name: str, *, alone: bool) -> Path:
    """Return where our leaves go, for a daemon that is in `own`; see `prepare_root`."""
    beside = own / f"factoryd-{name}"
    if (beside / "agents").is_dir():
        return beside
    if own.name == "daemon" and os.access(own.parent, os.W_OK):
        return own.parent
    if alone or (own / "agents").is_dir():
        return own
    return beside


def find_roots(name: str) -> list[Path]:
    """Return the roots of a daemon's own, wherever on this machine it was started.

    They are named for it. A service's cgroup is not, and is known only from what lives in it.
    """
    mount = _mount()
    if mount is None:
        return []
    own, found = f"factoryd-{name}", list[Path]()
    for directory, below, _ in os.walk(mount.point):
        if own in below:
            found.append(Path(directory, own))
        below[:] = [each for each in below if not each.startswith("factoryd-")]
    return found


def leaf_path(root: Path, issue: str, run: str) -> Path:
    """Return where a run's leaf is; any key gives one name that no interface file has."""
    return Path(f"{root}/agents/{quote(issue, safe='').replace('.', '%2E')}/{run}")


def list_leaves(root: Path) -> list[tuple[str, str, Path]]:
    """Return issue, run and path of every leaf."""
    return [
        (unquote(issue.name), leaf.name, leaf)
        for issue in _list_directories(root / "agents")
        for leaf in _list_directories(issue)
    ]


def read_inode(path: Path) -> int | None:
    """Return the inode of a cgroup's directory; None when there is none to be seen."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


class Leaf:
    """One run's cgroup, whatever sub-groups its agent makes in it included.

    Another directory at its path, known by another inode than `inode`, is as good as none.
    """

    def __init__(self, path: Path, inode: int | None = None) -> None:
        self._path = path
        self._prefix = f"{path}/"
        self._inode = inode

    @property
    def procs(self) -> Path:
        """Return the file that moves whoever writes 0 to it into the leaf."""
        return self._path / "cgroup.procs"

    @property
    def inode(self) -> int | None:
        """Return the inode of its directory, which tells it from all others; None if not known."""
        return self._inode

    def create(self, controllers: frozenset[str] = frozenset()) -> None:
        """Make the leaf, controlled by these; raise `FileExistsError` when there is one."""
        path, parent = os.fspath(self._path), self._path.parent
        while True:
            os.makedirs(parent, exist_ok=True)  # noqa: PTH103 (speed)
            if controllers:
                switch_on(parent, controllers)
            # A sibling's `remove` may take the parent away between the two.
            with contextlib.suppress(FileNotFoundError):
                os.mkdir(path)  # noqa: PTH102 (speed)
                self._inode = os.stat(path).st_ino  # noqa: PTH116 (speed)
                return

    def limit(self, limits: Limits) -> Limits:
        """Limit what it may use; return the limits that it cannot hold. See `set_limits`."""
        return limits if limits == _NO_LIMITS else set_limits(self._path, limits)

    def _is_another(self) -> bool:
        return self._inode is not None and read_inode(self._path) not in (None, self._inode)

    def list_pids(self) -> list[int]:
        """Return the processes in it, zombies not among them; none when it does not exist."""
        pids: list[int] = []
        for directory in self._list_all():
            try:
                text = (directory / "cgroup.procs").read_text()
            except OSError as error:
                # A threaded group's processes are listed by the domain above it.
                if error.errno in (*_GONE, errno.EOPNOTSUPP):
                    continue
                raise
            pids.extend(map(int, text.split()))
        return [pid for pid in pids if pid != 0]  # 0: of a pid namespace we cannot see into

    def holds(self, pid: int) -> bool:
        """Say whether the process with this pid is inside."""
        path = cgroup_of(pid)
        return path is not None and f"{path}/".startswith(self._prefix)

    def is_populated(self) -> bool:
        """Say whether anything is alive in it."""
        try:
            text = (self._path / "cgroup.events").read_text()
            return "populated 1" in text and not self._is_another()
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise

    async def wait_empty(self) -> None:
        """Return once nothing is alive in it: the kernel says so, nothing is polled for long."""
        await self._wait_while(b"populated 1")

    async def freeze(self) -> None:
        """Stop everything in it and return once all stands still; what enters does so as well."""
        self._write("cgroup.freeze", "1")
        await self._wait_while(b"frozen 0")

    async def _wait_while(self, event: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self._is_another():
            return
        try:
            with (
                (self._path / "cgroup.events").open("rb", buffering=0) as events,
                select.epoll() as poll,
            ):
                # trio waits for readable files; an epoll is readable when what is in it is ready.
                poll.register(events, select.EPOLLPRI)
                looks = iter(_NO_WAIT_ALONE_S)
                bound_s = next(looks)
                while event in os.pread(events.fileno(), 4096, 0):
                    with trio.move_on_after(bound_s):
                        await trio.lowlevel.wait_readable(poll.fileno())
                    bound_s = next(looks, math.inf)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def kill(self) -> None:
        """Have the kernel kill everything in it, also what is being forked right now."""
        self._write("cgroup.kill", "1")

    def thaw(self) -> None:
        """Let a frozen leaf run again, its sub-groups too; what runs costs no more than a look."""
        for directory in self._list_all():
            try:
                frozen = (directory / "cgroup.freeze").read_text().strip() != "0"
            except OSError:
                frozen = True
            if frozen:
                self._write(f"{directory.relative_to(self._path)}/cgroup.freeze", "0")

    def _write(self, name: str, text: str) -> None:
        """Write to a file of this very leaf, whatever takes its path meanwhile."""
        try:
            with contextlib.ExitStack() as stack:
                leaf = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, leaf)
                if self._inode in (None, os.fstat(leaf).st_ino):
                    file = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=leaf)
                    stack.callback(os.close, file)
                    os.write(file, text.encode())
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def read_cpu_s(self) -> float | None:
        """Return the CPU time of all that ever ran in it; None when it does not exist."""
        try:
            text = (self._path / "cpu.stat").read_text()
        except OSError:
            return None
        if self._is_another():
            return None
        fields = dict(line.split() for line in text.splitlines())
        return int(fields["usage_usec"]) / 1e6

    def read_spent(self) -> Usage:
        """Return what all that ever ran in it used; unknown where it does not exist."""
        return read_spent(self._path)

    def find_victims(self) -> tuple[Victim, ...]:
        """Return whom the kernel's log names as killed in it; raise `OSError` if unreadable."""
        return find_victims("/".join(self._path.parts[-3:]))

    def remove(self) -> None:
        """Remove it and, with its last leaf, the issue's directory.

        Raise `OSError` (busy) when something is alive in it.
        """
        for directory in reversed(self._list_all()):
            with contextlib.suppress(FileNotFoundError):
                directory.rmdir()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()

    def _list_all(self) -> list[Path]:
        """Return the leaf and its sub-groups, parents first."""
        found = [] if self._is_another() else [self._path]
        for directory in found:  # grows while it is walked
            found.extend(_list_directories(directory))
        return found


def _list_directories(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [path / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


class LeafGroup:
    """A leaf as the group of one tree. See `group.Group`."""

    waits = False

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf

    def list_members(self) -> dict[int, Stat]:
        """Return every process in the leaf."""
        return read_stats(self._leaf.list_pids())

    def among(self, pids: Collection[int]) -> set[int]:
        """Return which of these are in the leaf right now, ended ones too.

        The leaf lists most of them at once; one that it does not, for it has ended or moves from
        one sub-group to another, is asked for by itself.
        """
        listed = set(self._leaf.list_pids())
        return {pid for pid in pids if pid in listed or self._leaf.holds(pid)}

    def thaw(self) -> None:
        """Let a frozen leaf run again."""
        self._leaf.thaw()

    def kill(self) -> bool:
        """Have the kernel kill all of it; False when there is no leaf for it."""
        self._leaf.kill()
        return True

    async def wait_empty(self) -> None:
        """Return once the kernel says that nothing is alive in it."""
        await self._leaf.wait_empty()

    async def freeze(self) -> None:
        """Stop all of it and return once the kernel says that all stands still."""
        await self._leaf.freeze()

    def remove(self) -> Usage:
        """Remove the leaf and return what all that ever ran in it used."""
        spent = self._leaf.read_spent()
        self._leaf.remove()
        return spent

    def find_victims(self) -> tuple[Victim, ...]:
        """Return whom the kernel's log names as killed in it; raise `OSError` if unreadable."""
        return self._leaf.find_victims()

    def measure(self) -> Usage:
        """Return what its processes use; the CPU time is exact, ended ones included."""
        return measure(self.list_members(), self._leaf.read_cpu_s())
