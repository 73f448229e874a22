"""Whether a daemon is there, as the reaper must know before it touches anything."""

from factoryd.core.errors import KEEP_AGENTS_STATUS
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.model import Data, ProcessIdentity


class Holder(Data, frozen=True, kw_only=True):
    """Who holds a lock, as the lock's file says; `reaping`: another reaper, not a daemon."""

    pid: int | None
    reaping: bool = False


class Doubtful(Data, frozen=True, kw_only=True):
    """No heartbeat that can be believed."""

    reason: str


class Dead(Data, frozen=True, kw_only=True):
    """Nobody holds the lock: there is no daemon, whatever a heartbeat says."""


class Alive(Data, frozen=True, kw_only=True):
    """A daemon is there and makes progress, or another reaper is at work."""

    reason: str


class Hung(Data, frozen=True, kw_only=True):
    """Somebody holds the lock and gives no sign of life; `identity` where it is proven who."""

    reason: str
    identity: ProcessIdentity | None


Liveness = Dead | Alive | Hung


class ServiceEnd(Data, frozen=True, kw_only=True):
    """How a service ended, as systemd tells `ExecStopPost=` (systemd.exec(5))."""

    result: str
    """`$SERVICE_RESULT`"""
    code: str
    """`$EXIT_CODE`: `exited`, `killed` or `dumped`."""
    status: str
    """`$EXIT_STATUS`: a number, or the name of a signal."""


def judge(holder: Holder | None, beat: Heartbeat | Doubtful, boottime: float) -> Liveness:
    """Return how the daemon is: by who holds its lock, then by its heartbeat.

    `beat` is one of a process that lives; `boottime` is now (CLOCK_BOOTTIME, s).
    """
    if holder is None:
        return Dead()
    who = "factoryd" if holder.pid is None else f"factoryd (pid {holder.pid})"
    if holder.reaping:
        return Alive(reason=f"another `{who.replace('factoryd', 'factoryd reap', 1)}` is at work")
    if isinstance(beat, Doubtful):
        return Hung(reason=f"{who} holds the lock and shows no life: {beat.reason}", identity=None)
    if beat.pid != holder.pid:
        reason = f"{who} holds the lock, and the heartbeat is that of process {beat.pid}"
        return Hung(reason=reason, identity=None)
    age_s = boottime - beat.boottime
    if age_s < beat.stale_after_s:
        return Alive(reason=f"{who} is {beat.status} and looks after its agents itself")
    identity = ProcessIdentity(pid=beat.pid, start_ticks=beat.start_ticks, boot_id=beat.boot_id)
    hangs = "hangs while it stops" if beat.status == "stopping" else "hangs"
    return Hung(
        reason=f"{who} {hangs}: its newest heartbeat is {age_s:.0f} s old", identity=identity
    )


def why_kept(end: ServiceEnd, beat: str | None) -> str | None:
    """Return why the agents of a service that has ended go on; None when they are to end too.

    They go on only where a next daemon takes them over. `beat` is the status in the daemon's last
    heartbeat, None when there is none to be believed. The first row that fits decides:

    | the daemon                                          | last heartbeat | agents |
    |-----------------------------------------------------|----------------|--------|
    | exited with 75: leaves them to the next one         | any            | go on  |
    | ended well, or by the signal for a stop (`success`) | any            | end    |
    | ended in any way                                    | `stopping`     | end    |
    | did not heed a stop and was killed (`timeout`)      | `running`      | end    |
    | was not ready in time and was killed (`timeout`)    | other or none  | go on  |
    | failed in any other way                             | other or none  | go on  |
    """
    if (end.code, end.status) == ("exited", str(KEEP_AGENTS_STATUS)):
        return "the daemon left its agents to the next one"
    if end.result == "success" or beat == "stopping":
        return None
    if end.result == "timeout" and beat == "running":
        return None  # only a stop has a time limit for a daemon that is up
    return f"the daemon did not stop, it failed ({end.result}): the next one takes its agents over"
