"""The heartbeat file: the daemon's sign of life, replaced as a whole."""

from pathlib import Path

import msgspec

from factoryd.core.heartbeat import Heartbeat


class AtomicHeartbeatFile:
    """Writes heartbeats to one path; a reader sees an old one or a new one, never a part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh = path.with_name(f".{path.name}.new")

    def write(self, beat: Heartbeat) -> None:
        """Replace the heartbeat atomically. Blocking; raises `OSError`."""
        self._fresh.write_bytes(msgspec.json.encode(beat) + b"\n")
        self._fresh.replace(self._path)
