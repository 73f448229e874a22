"""The kernel's log, asked for the one thing that is written nowhere else: whom it killed."""

import errno
import os
import re
from collections.abc import Iterable, Iterator

from factoryd.core.model import Victim

_LOG = "/dev/kmsg"
_RECORD_BYTES = 8192
_MOST_RECORDS = 1 << 17
"""Bound on a log that is written to faster than it is read."""

_KILL = re.compile(
    r"oom-kill:constraint=\w+,.*?(?P<machine>,global_oom)?,task_memcg=(?P<cgroup>.*)"
    r",task=(?P<name>.*),pid=(?P<pid>\d+),uid=\d+"
)


def find_victims(cgroup: str) -> tuple[Victim, ...]:
    """Return whom the kernel killed for lack of memory in a cgroup; see `parse_victims`.

    Only what the log still holds is found. Raise `OSError` when it may not be read. Blocking.
    """
    fd = os.open(_LOG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return parse_victims(_read_records(fd), cgroup)
    finally:
        os.close(fd)


def _read_records(fd: int) -> Iterator[str]:
    for _ in range(_MOST_RECORDS):
        try:
            yield os.read(fd, _RECORD_BYTES).decode(errors="replace")
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EPIPE:  # overwritten before it was read: on with the next
                raise


def parse_victims(records: Iterable[str], cgroup: str) -> tuple[Victim, ...]:
    """Return whom records of the log name as killed in the cgroup or below it, oldest first.

    `cgroup` is the end of a path, from a component on, that no other cgroup's path holds: in a
    container the log has the whole path, of which only the end is known there. A record is as
    /dev/kmsg gives it (`dump_oom_victim` in the kernel's mm/oom_kill.c writes it) or as dmesg does.
    """
    inside = f"/{cgroup.strip('/')}/"
    found = (_KILL.search(record.partition("\n")[0]) for record in records)
    return tuple(
        Victim(name=kill["name"], pid=int(kill["pid"]), machine=kill["machine"] is not None)
        for kill in found
        if kill is not None and inside in f"{kill['cgroup']}/"
    )
