"""The service manager: notifications to systemd (sd_notify(3)), silent where there is none."""

import logging

import sdnotify
import trio

from factoryd.core.installation import parse_version

logger = logging.getLogger(__name__)


class SystemdNotifier:
    """Tells systemd what the daemon does, through `$NOTIFY_SOCKET`."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._shown = ""

    def ready(self) -> None:
        """Say that the daemon serves."""
        self._notifier.notify("READY=1")

    def status(self, text: str) -> None:
        """Show one human line; the same line again is not sent."""
        if text != self._shown:
            self._shown = text
            self._notifier.notify(f"STATUS={text}")

    def stopping(self) -> None:
        """Say that the daemon has begun to stop."""
        self._notifier.notify("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._notifier.notify("WATCHDOG=1")


async def find_version() -> int | None:
    """Return the version of the systemd that is installed; None where there is none."""
    try:
        done = await trio.run_process(["systemctl", "--version"], capture_stdout=True, check=False)
    except OSError:
        return None
    return parse_version(done.stdout.decode(errors="replace"))
