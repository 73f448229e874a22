"""The lock that makes a daemon the only one of its directory, freed by the kernel when it dies."""

import fcntl
import os
from pathlib import Path

from factoryd.core.errors import AlreadyRunning


class InstanceLock:
    """An flock(2) on a file, held from construction until `close` or death."""

    def __init__(self, path: Path) -> None:
        """Take the lock; raise `AlreadyRunning` with the holder's pid when it is taken."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise AlreadyRunning(
                f"{path.parent}: factoryd runs here already, pid {holder or 'unknown'}: stop it, or "
                "give another directory"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Give the lock up."""
        os.close(self._descriptor)
