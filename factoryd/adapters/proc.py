"""What /proc says about one process: None when it is gone, `OSError` when it cannot be told."""

import os
from functools import cache
from pathlib import Path, PurePosixPath

from factoryd.core.model import Data, ProcessIdentity

_MOST_BYTES = 1 << 22
"""Bound on one file of /proc; `environ` and `cmdline` are as long as a process made them."""

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Stat(Data, frozen=True, kw_only=True):
    """One line of `/proc/PID/stat`, the parts that matter here (proc(5))."""

    pid: int
    state: str
    ppid: int
    session: int
    cpu_ticks: int
    """User and system time, with that of its children it has waited for."""
    threads: int
    start_ticks: int

    @property
    def ended(self) -> bool:
        """Say whether it has exited: a zombie without other threads."""
        return self.state in "ZX" and self.threads <= 1

    @property
    def identity(self) -> ProcessIdentity:
        """Return who it is for certain."""
        return ProcessIdentity(pid=self.pid, start_ticks=self.start_ticks, boot_id=boot_id())


@cache
def boot_id() -> str:
    """Return the identity of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(pid: int, name: str) -> bytes | None:
    """Return `/proc/PID/NAME`, at most 4 MiB of it."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        parts = [os.read(fd, 65536)]
        size = len(parts[0])
        while parts[-1] and name in ("cmdline", "environ") and size < _MOST_BYTES:
            parts.append(os.read(fd, 65536))
            size += len(parts[-1])
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    return b"".join(parts)


def read_stat(pid: int) -> Stat | None:
    """Return the process's state line."""
    text = read(pid, "stat")
    if not text:
        return None
    # The name stands in parentheses and may hold anything, parentheses and spaces included.
    fields = text[text.rindex(b")") + 2 :].split(maxsplit=20)
    return Stat(
        pid=pid,
        state=fields[0].decode(),
        ppid=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=sum(map(int, fields[11:15])),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
    )


def read_stats(pids: list[int]) -> dict[int, Stat]:
    """Return the state lines of those that have not ended."""
    stats = (read_stat(pid) for pid in pids)
    return {stat.pid: stat for stat in stats if stat is not None and not stat.ended}


def list_pids() -> list[int]:
    """Return every process there is."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 (speed)


def read_argv(pid: int) -> tuple[str, ...]:
    """Return the command line; empty for a process that is gone, ending or a kernel thread."""
    text = read(pid, "cmdline") or b""
    return tuple(os.fsdecode(part) for part in text.split(b"\0")[:-1])


def read_env(pid: int, name: str) -> str | None:
    """Return a variable of the environment the process was started with."""
    prefix = os.fsencode(name) + b"="
    for part in (read(pid, "environ") or b"").split(b"\0"):
        if part.startswith(prefix):
            return os.fsdecode(part[len(prefix) :])
    return None


def read_names(pid: int) -> frozenset[str]:
    """Return every name it goes by: its own, its program's and its first argument's."""
    names = {os.fsdecode(read(pid, "comm") or b"").removesuffix("\n")}
    try:
        program = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 (speed)
        names.add(PurePosixPath(program).name)
    except OSError:
        pass  # a kernel thread has none, and another user's is not shown
    names.update(PurePosixPath(word).name for word in read_argv(pid)[:1])
    return frozenset(names - {""})


def list_ancestors(pid: int) -> frozenset[int]:
    """Return a process and all those it descends from."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        stat = read_stat(pid)
        pid = stat.ppid if stat is not None else 0
    return frozenset(found)
