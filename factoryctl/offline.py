"""What the heartbeat file says about a daemon that does not answer."""

import time
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
