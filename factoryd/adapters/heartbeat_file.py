"""The heartbeat file: the daemon's sign of life, replaced as a whole."""

import os
import time
from pathlib import Path

import msgspec

from factoryd.adapters.proc import boot_id, read_stat
from factoryd.core.heartbeat import Heartbeat, doubt
from factoryd.core.liveness import Doubtful
from factoryd.wire.heartbeat import parse_heartbeat


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


def read_heartbeat(path: Path) -> Heartbeat | Doubtful:
    """Return the newest heartbeat of this boot, whether its process lives or not. Blocking."""
    try:
        beat = parse_heartbeat(path.read_bytes())
    except FileNotFoundError:
        return Doubtful(reason=f"there is no {path}")
    except OSError as error:
        return Doubtful(reason=f"{path} cannot be read ({error.strerror})")
    except ValueError as error:
        return Doubtful(reason=f"{path} is no heartbeat ({error})")
    return _check(beat, beat.start_ticks)


def read_living(path: Path) -> Heartbeat | Doubtful:
    """Return the newest heartbeat, if its process lives. Blocking."""
    beat = read_heartbeat(path)
    if isinstance(beat, Doubtful):
        return beat
    stat = read_stat(beat.pid)
    return _check(beat, None if stat is None or stat.ended else stat.start_ticks)


def _check(beat: Heartbeat, start_ticks: int | None) -> Heartbeat | Doubtful:
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    wrong = doubt(beat, boot_id=boot_id(), boottime=boottime, start_ticks=start_ticks)
    return beat if wrong is None else Doubtful(reason=wrong)
