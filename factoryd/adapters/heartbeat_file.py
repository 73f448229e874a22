"""The heartbeat file: the daemon's sign of life, replaced as a whole."""

import os
from pathlib import Path

import msgspec

from factoryd.core.heartbeat import Heartbeat


class AtomicHeartbeatFile:
    """Writes heartbeats to one path; a reader sees an old one or a new one, never a part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh = path.with_name(f".{path.name}.new")

    def write(self, beat: Heartbeat) -> None:
        """Replace the heartbeat atomically, for all to read. Blocking; raises `OSError`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._fresh, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(msgspec.json.encode(beat) + b"\n")
        self._fresh.replace(self._path)

    def remove(self) -> None:
        """Take the heartbeat away: nothing of the daemon is left. Blocking; raises `OSError`."""
        self._fresh.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
