"""Signals that cannot hit the wrong process: opened, verified, then sent through the pidfd."""

import contextlib
import errno
import os
import select
import signal
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Self

import trio

from factoryd.adapters.proc import boot_id, read_stat
from factoryd.adapters.witness import read_exit
from factoryd.core.model import ProcessIdentity

_REAPED_WITHIN_S = 1.0
"""How long an ended process may stay a zombie until nobody is asked about its exit any more."""


class Verdict(StrEnum):
    """What became of a signal, or of the attempt to find who should get it."""

    SENT = "sent"
    GONE = "gone"
    """It has ended: for a signal that is as good as having arrived."""
    MISMATCH = "pid identity mismatch"
    """The pid belongs to another process now; it was only probed."""
    DENIED = "not permitted"


class PidFd:
    """A process that was proven to be the one meant; holds a descriptor until closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, number: signal.Signals) -> Verdict:
        """Send a signal; that it has ended meanwhile, or may not be signalled, is the answer."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return Verdict.GONE
        except PermissionError:
            return Verdict.DENIED
        return Verdict.SENT

    async def wait_ended(self) -> None:
        """Return once the process has ended, whoever its parent is."""
        await trio.lowlevel.wait_readable(self._fd)

    async def wait_status(self) -> int | None:
        """Return the status of the ended process as a shell would say it; None when nobody can.

        The kernel tells strangers only once its parent has reaped it; bounded to a second.
        """
        try:
            with trio.move_on_after(_REAPED_WITHIN_S), select.epoll() as poll:
                poll.register(self._fd, 0)  # no event but the hang-up, which is the reaping
                if (status := read_exit(self._fd)) is not None:
                    return status
                await trio.lowlevel.wait_readable(poll.fileno())
            return read_exit(self._fd)
        except OSError:
            return None

    def close(self) -> None:
        """Give the descriptor back; nobody may be waiting on it."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def identify(pid: int) -> ProcessIdentity | None:
    """Return who has this pid now; None when nobody has. An unreaped zombie still has its own."""
    stat = read_stat(pid)
    return None if stat is None else stat.identity


def open_verified(identity: ProcessIdentity) -> PidFd | Verdict:
    """Return a handle on exactly this process, or why there is none (gone or mismatch).

    The descriptor comes first: what is read afterwards is about its process, or about one that
    took the pid since, and then the descriptor's own is dead and no signal reaches anyone.
    """
    if identity.boot_id != boot_id():
        return Verdict.MISMATCH
    try:
        fd = os.pidfd_open(identity.pid)
    except OSError as error:
        # A number that is a thread's by now was a process once, so that process is gone.
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return Verdict.GONE
        raise
    try:
        verdict = verify(identity)
    except BaseException:
        os.close(fd)
        raise
    if verdict is None:
        return PidFd(fd)
    os.close(fd)
    return verdict


def verify(identity: ProcessIdentity) -> Verdict | None:
    """Return None while exactly this process runs, else what became of it. Looks only."""
    if identity.boot_id != boot_id():
        return Verdict.MISMATCH
    stat = read_stat(identity.pid)
    if stat is None:
        return Verdict.GONE
    if stat.start_ticks != identity.start_ticks:
        return Verdict.MISMATCH
    return Verdict.GONE if stat.ended else None


def reap(identity: ProcessIdentity) -> None:
    """Take away what is left of a child of ours that has ended; nothing, of anybody else's."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(identity.pid)
        try:
            if identify(identity.pid) == identity:
                os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
        finally:
            os.close(fd)


async def wait_ended(
    identity: ProcessIdentity, *, is_told: Callable[[], bool] = lambda: True
) -> int | None:
    """Return once exactly this process has ended; at once when it has already.

    Where nobody has told its exit status by then (`is_told`), return it as a shell would say it, if
    the kernel tells; else None.
    """
    match open_verified(identity):
        case PidFd() as process:
            with process:
                await process.wait_ended()
                return None if is_told() else await process.wait_status()
        case _:
            await trio.lowlevel.checkpoint()
            return None
