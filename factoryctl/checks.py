"""What a daemon says of itself, or leaves behind, as a check of `doctor`."""

from collections.abc import Sequence

from factoryctl.errors import Failure, NotRunning
from factoryctl.offline import Verdict as Judgement
from factoryd.wire.answers import DaemonView
from factoryd.wire.checkup import Check, Verdict


def daemon_check(daemon: DaemonView) -> Check:
    """Return how a daemon that answers is."""
    detail = f"factoryd {daemon.version} is {daemon.state}, pid {daemon.pid}"
    if daemon.degraded:
        return Check(
            name="daemon",
            state=Verdict.FAILED,
            detail=f"{detail}, degraded: {', '.join(daemon.degraded)}",
            advice="factoryctl status and its log say more",
        )
    state = Verdict.OK if daemon.state == "running" else Verdict.WARNING
    return Check(name="daemon", state=state, detail=detail)


def unheard_check(failure: Failure, judgements: Sequence[Judgement]) -> Check:
    """Return how a daemon is that gave no answer, by what its heartbeats prove."""
    alive = [one for one in judgements if one.state != "not-running"]
    if alive:
        hangs = alive[0].state == "hung"
        return Check(
            name="daemon",
            state=Verdict.FAILED if hangs else Verdict.WARNING,
            detail=alive[0].reason,
            advice="its log says what it does; killed, it is followed by one that adopts its agents"
            if hangs
            else "ask again in a moment",
        )
    missing = isinstance(failure, NotRunning)
    return Check(
        name="daemon", state=Verdict.WARNING if missing else Verdict.FAILED, detail=str(failure)
    )


def in_force(daemon: DaemonView) -> str:
    """Return what a daemon uses, as `factoryd doctor --in-force` takes it."""
    return f"{daemon.containment}:{','.join(daemon.controllers)}"
