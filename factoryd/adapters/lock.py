"""The lock that makes a daemon the only one of its directory, freed by the kernel when it dies."""

import fcntl
import os
import time
from pathlib import Path

from factoryd.core.errors import AlreadyRunning, BadUsage, PermissionDenied
from factoryd.core.liveness import Holder

_REAPING = b"reaping\n"

_BRIEFLY_S = 3.0
"""How long is waited for holders that are soon done: who only looks, or reaps and finds nothing."""

_PAUSE_S = 0.01


class InstanceLock:
    """An flock(2) on a file, held from construction until `close` or death."""

    def __init__(self, path: Path, *, reaping: bool = False) -> None:
        """Take the lock; raise `AlreadyRunning` with the holder's pid when it is taken.

        `reaping`: for a reaper, which wants no daemon to start meanwhile. Raises `BadUsage` when
        the file cannot be made or locked.
        """
        self._text = b"%d\n%s" % (os.getpid(), _REAPING if reaping else b"")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            self._take(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock up."""
        os.close(self._descriptor)

    def _take(self, path: Path) -> None:
        until = time.monotonic() + _BRIEFLY_S
        try:
            while not _flock(self._descriptor, fcntl.LOCK_EX):
                holder = _read(self._descriptor)
                # Beside those who only look, as `read_holder` does, a shared lock can be had.
                brief = holder.reaping or _flock(self._descriptor, fcntl.LOCK_SH)
                if not brief or time.monotonic() > until:
                    raise _taken(path, holder)
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
                time.sleep(_PAUSE_S)  # noqa: TID251 (nothing else runs before there is a lock)
        except OSError as error:
            raise _unusable(path, error) from error
        # Written over, not emptied first: whoever reads the first line meanwhile finds a pid.
        os.ftruncate(self._descriptor, os.pwrite(self._descriptor, self._text, 0))


def read_holder(path: Path) -> Holder | None:
    """Return who holds a lock; None when nobody does. Nothing is made, changed or kept.

    Raises `PermissionDenied` where this user may not look, `BadUsage` for what is no lock.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise PermissionDenied(
            f"{path}: you may not look there: ask as root or as the user factoryd runs as"
        ) from error
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        return None if _flock(descriptor, fcntl.LOCK_SH) else _read(descriptor)
    except OSError as error:
        raise _unusable(path, error) from error
    finally:
        os.close(descriptor)


def _flock(descriptor: int, kind: int) -> bool:
    """Take a lock, without waiting for it, and say whether it could be had."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> Holder:
    pid, _, rest = os.pread(descriptor, 40, 0).partition(b"\n")
    return Holder(pid=int(pid) if pid.isdigit() else None, reaping=rest == _REAPING)


def _taken(path: Path, holder: Holder) -> AlreadyRunning:
    pid = holder.pid or "unknown"
    if holder.reaping:
        return AlreadyRunning(f"{path.parent}: factoryd reap is at work here, pid {pid}: try again")
    return AlreadyRunning(
        f"{path.parent}: factoryd runs here already, pid {pid}: stop it, or give another directory"
    )


def _unusable(path: Path, error: OSError) -> BadUsage:
    return BadUsage(
        f"{path}: cannot be locked ({error.strerror}): mend that or choose another directory"
    )
