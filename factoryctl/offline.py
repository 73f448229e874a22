"""What the heartbeat file says about a daemon that does not answer."""

import os
import select
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from factoryd.wire.heartbeat import Heartbeat, doubt, parse_heartbeat

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon seen from outside: `starting`, `stopping`, `hung` or `not-running`, and why.

    `fresh` says that its newest heartbeat is younger than the daemon promised to let it grow, and
    that the process which wrote it lives; whoever is fresh may answer yet.
    """

    state: str
    reason: str
    fresh: bool = False
    pid: int | None = None
    heartbeat_age_s: float | None = None


def judge(socket: str) -> Verdict | None:
    """Return what the heartbeat beside a control socket proves; None when there is none.

    Whatever cannot be believed proves nothing: then the daemon is not running.
    """
    heartbeat = Path(socket).parent / "heartbeat"
    try:
        beat = parse_heartbeat(heartbeat.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        return _gone(f"{heartbeat} cannot be read ({error.strerror})")
    except ValueError as error:
        return _gone(f"{heartbeat} is no heartbeat ({error})")
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    wrong = doubt(
        beat,
        boot_id=_BOOT_ID.read_text().strip(),
        boottime=now,
        start_ticks=_start_ticks(beat.pid),
    )
    return _gone(wrong) if wrong is not None else _alive(beat, now - beat.boottime)


@contextmanager
def hold(pid: int, socket: str) -> Generator["Process | None"]:
    """Yield a hold on a daemon that shows itself alive in its heartbeat; None if it no longer does.

    The process is held first and its heartbeat looked at then, so it is that one and no other.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        verdict = judge(socket)
        alive = verdict is not None and verdict.fresh and verdict.pid == pid
        yield Process(descriptor) if alive else None
    finally:
        os.close(descriptor)


class Process:
    """A process that was proven to be the one meant."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); raise `PermissionError` where that may not be asked."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGTERM)

    def wait_ended(self, every_s: float) -> Iterator[None]:
        """Return once it has ended, yielding after each further `every_s`."""
        while not select.select([self._descriptor], [], [], every_s)[0]:
            yield


def _alive(beat: Heartbeat, age_s: float) -> Verdict:
    fresh = age_s < beat.stale_after_s
    state = beat.status if fresh and beat.status != "running" else "hung"
    if not fresh:
        wrong = f"hangs: its newest heartbeat is {age_s:.0f} s old"
    elif state == "hung":
        wrong = "does not answer"
    else:
        wrong = f"is {state} and does not answer"
    return Verdict(
        state=state,
        reason=f"factoryd (pid {beat.pid}) {wrong}",
        fresh=fresh,
        pid=beat.pid,
        heartbeat_age_s=round(age_s, 3),
    )


def _gone(reason: str) -> Verdict:
    return Verdict(state="not-running", reason=f"factoryd is not running: {reason}")


def _start_ticks(pid: int) -> int | None:
    """Return when a process was started (clock ticks since boot); None when it is not there."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
