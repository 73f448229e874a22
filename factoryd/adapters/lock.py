"""The lock that makes a daemon the only one of its directory, freed by the kernel when it dies."""

import fcntl
import os
from pathlib import Path

from factoryd.core.errors import AlreadyRunning, BadUsage


class InstanceLock:
    """An flock(2) on a file, held from construction until `close` or death."""

    def __init__(self, path: Path) -> None:
        """Take the lock; raise `AlreadyRunning` with the holder's pid when it is taken.

        Raises `BadUsage` when the file cannot be made or locked.
        """
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
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").partition("\n")[0]
            raise AlreadyRunning(
                f"{path.parent}: factoryd runs here already, pid {holder or 'unknown'}: stop it, or "
                "give another directory"
            ) from None
        except OSError as error:
            raise _unusable(path, error) from error
        # Written over, not emptied first: whoever reads the first line meanwhile finds a pid.
        os.ftruncate(self._descriptor, os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0))


def _unusable(path: Path, error: OSError) -> BadUsage:
    return BadUsage(
        f"{path}: cannot be locked ({error.strerror}): mend that or choose another directory"
    )
