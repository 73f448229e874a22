"""The service manager: notifications to systemd (sd_notify(3)), silent where there is none."""

import logging
import math
import os
import time
from collections.abc import Mapping

import sdnotify
import trio

from factoryd.core.installation import parse_version

logger = logging.getLogger(__name__)


class SystemdNotifier:
    """Tells systemd what the daemon does, through `$NOTIFY_SOCKET`."""

    def __init__(self) -> None:
        self._notifier = _connect()
        self._unsaid: dict[str, str] = {}
        """The newest words of each kind that systemd had no room for, the oldest first."""
        self._shown = ""
        self.watchdog_s = read_watchdog(os.environ, os.getpid())
        """How long systemd waits for `alive` before it kills us; infinite when it does not."""

    def ready(self) -> None:
        """Say that the daemon serves, or that what it read anew is in force."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """Show one human line; the same line again is not sent."""
        line = " ".join(text.split())
        if line != self._shown or self._unsaid:
            self._shown = line
            # The library sends Latin-1, systemd reads UTF-8.
            self._tell(f"STATUS={line}".encode(errors="replace").decode("latin-1"))

    def reloading(self) -> None:
        """Say that the configuration is being read anew, and since when (CLOCK_MONOTONIC, us)."""
        moment_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={moment_us}")

    def stopping(self) -> None:
        """Say that the daemon has begun to stop."""
        self._tell("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask that the start, reload or stop under way may take so many seconds from now on."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Say no more."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _tell(self, words: str) -> None:
        """Say something, after what could not be said before; never wait for systemd to listen."""
        if self._notifier is None:
            return
        kind = words.partition("=")[0]
        self._unsaid.pop(kind, None)
        self._unsaid[kind] = words
        for said in list(self._unsaid):
            try:
                self._notifier.notify(self._unsaid[said])
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("systemd is not there to be told %s: %s", said, error.strerror)
            del self._unsaid[said]


def _connect() -> sdnotify.SystemdNotifier | None:
    """Return who speaks to systemd, without ever waiting for it; None where it does not listen."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is None:
        return None
    notifier.socket.settimeout(0)
    notifier.debug = True  # that is: what cannot be said is raised
    return notifier


def read_watchdog(environ: Mapping[str, str], pid: int) -> float:
    """Return the seconds of a process's watchdog (sd_watchdog_enabled(3)); infinite without one."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return math.inf
    try:
        return int(environ.get("WATCHDOG_USEC", "")) / 1_000_000 or math.inf
    except ValueError:
        return math.inf


async def find_version() -> int | None:
    """Return the version of the systemd that is installed; None where there is none."""
    try:
        done = await trio.run_process(["systemctl", "--version"], capture_stdout=True, check=False)
    except OSError:
        return None
    return parse_version(done.stdout.decode(errors="replace"))
