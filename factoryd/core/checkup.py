"""What `doctor` looks at: how each thing is that a factory depends on, and what to do about it."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from factoryd.core.config import AgentConfig
from factoryd.core.model import Containment, Data

CONTROLLERS = {"memory": "memory_max", "pids": "pids_max", "cpu": "cpu_weight"}
"""The cgroup controllers that a limit of an agent needs, each with the key that asks for it."""

HELD_INSTEAD = {
    "memory_max": "memory_max limits the private memory of each process (RLIMIT_DATA)",
    "pids_max": "pids_max limits all that the agent's user runs (RLIMIT_NPROC), and root not at all",
    "cpu_weight": "cpu_weight below 100 is a nice level",
}
"""What a limit comes to where its controller is not delegated."""

_UNHELD = "pids_max limits nothing, as agents run as root here (RLIMIT_NPROC does not bind root)"

WATCHDOG_BEATS = 2
"""The daemon is to feed its watchdog at least so often before that bites."""

_DELEGATE = (
    "run factoryd as a systemd service with Delegate=yes and DelegateSubgroup=daemon "
    "(systemd 254 or later) on a machine with unified cgroups"
)


class Verdict(StrEnum):
    """How a thing is."""

    OK = "ok"
    WARNING = "warning"
    """The factory works, with less than it could have."""
    FAILED = "failed"
    """The factory, or an agent of it, cannot work."""


class Check(Data, frozen=True, kw_only=True):
    """One thing that was looked at, how it is, and what to do where that is wrong."""

    name: str
    state: Verdict
    detail: str
    advice: str | None = None


class Checkup(Data, frozen=True, kw_only=True):
    """All that was looked at."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> bool:
        """Say whether anything keeps the factory, or an agent of it, from working."""
        return any(check.state is Verdict.FAILED for check in self.checks)


class CgroupLook(Data, frozen=True, kw_only=True):
    """What there is of cgroups for a daemon started here: a place for its trees, or why none.

    `layout` is `unified`, or `hybrid` where version 1 holds some controllers. `controllers` are
    those that limits of agents could use.
    """

    layout: str | None = None
    root: str = ""
    problem: str | None = None
    controllers: frozenset[str] = frozenset()


class InForce(Data, frozen=True, kw_only=True):
    """What a running daemon says of itself; None is what nobody has said."""

    containment: str | None = None
    controllers: frozenset[str] | None = None

    @classmethod
    def parse(cls, text: str) -> "InForce":
        """Return what is written as `cgroup:memory,pids`, or without the controllers; "" is nothing."""
        containment, colon, controllers = text.partition(":")
        return cls(
            containment=containment or None,
            controllers=frozenset(filter(None, controllers.split(","))) if colon else None,
        )


def check_containment(look: CgroupLook, wanted: str, in_force: str | None = None) -> Check:
    """Return which containment is in force, else which one a daemon started here would choose."""
    if in_force is not None:
        return _check_in_force(look, wanted, in_force)
    if wanted == Containment.SUBREAPER:
        detail = "subreaper, as the configuration says"
        return Check(name="containment", state=Verdict.OK, detail=detail)
    if look.problem is None:
        detail = f"cgroup: trees of a daemon started here live below {look.root} ({look.layout})"
        return Check(name="containment", state=Verdict.OK, detail=detail)
    if wanted == Containment.CGROUP:
        return Check(
            name="containment",
            state=Verdict.FAILED,
            detail=f"no cgroups can be made here, and the configuration wants them: {look.problem}",
            advice=f'{_DELEGATE}, or set containment = "auto"',
        )
    return Check(
        name="containment",
        state=Verdict.WARNING,
        detail=f"subreaper, as no cgroups can be made here: {look.problem}",
        advice=_DELEGATE,
    )


def _check_in_force(look: CgroupLook, wanted: str, in_force: str) -> Check:
    detail = f"{in_force} is in force in the daemon that runs"
    if in_force == Containment.CGROUP or wanted == Containment.SUBREAPER:
        return Check(name="containment", state=Verdict.OK, detail=detail)
    here = look.problem or "cgroups could be made where this was asked"
    return Check(
        name="containment", state=Verdict.WARNING, detail=f"{detail}: {here}", advice=_DELEGATE
    )


def check_controllers(
    have: Iterable[str], agents: Mapping[str, AgentConfig], *, as_root: bool = False
) -> Check:
    """Return which limits of agents the kernel would enforce; wrong is only what is configured.

    `as_root`: agents are known to run as root, whom a limit on processes does not bind.
    """
    missing = {name: key for name, key in CONTROLLERS.items() if name not in set(have)}
    if not missing:
        detail = "memory, pids and cpu are delegated: all limits of agents are enforced"
        return Check(name="controllers", state=Verdict.OK, detail=detail)
    names = ", ".join(missing)
    held = {**HELD_INSTEAD, "pids_max": _UNHELD} if as_root else HELD_INSTEAD
    instead = ", ".join(held[key] for key in missing.values())
    detail = f"not delegated: {names}; no tree as a whole is held to a limit of theirs: {instead}"
    wanted = {key for agent in agents.values() for key in missing.values() if getattr(agent, key)}
    if not wanted:
        return Check(name="controllers", state=Verdict.OK, detail=f"{detail} (none is configured)")
    return Check(
        name="controllers",
        state=Verdict.WARNING,
        detail=f"{detail} (configured: {', '.join(sorted(wanted))})",
        advice=_DELEGATE,
    )


def check_watchdog(notify: str, watchdog_usec: str, interval_s: float) -> Check:
    """Return what a service manager expects, from its environment variables; "" is not set."""
    name = "service manager"
    if not notify:
        detail = "none has started this process (NOTIFY_SOCKET is not set)"
        return Check(name=name, state=Verdict.OK, detail=detail)
    if not watchdog_usec.isdecimal():
        detail = "it is told when the daemon is ready; it has no watchdog (WatchdogSec=)"
        return Check(name=name, state=Verdict.OK, detail=detail)
    watchdog_s = int(watchdog_usec) / 1e6
    if watchdog_s < WATCHDOG_BEATS * interval_s:
        return Check(
            name=name,
            state=Verdict.FAILED,
            detail=f"its watchdog bites after {watchdog_s:g} s, heartbeats come every {interval_s:g} s",
            advice=f"set WatchdogSec= to {WATCHDOG_BEATS * interval_s:g} or more",
        )
    detail = f"it is told when the daemon is ready, and its watchdog bites after {watchdog_s:g} s"
    return Check(name=name, state=Verdict.OK, detail=detail)


def write_lines(checkup: Checkup) -> list[str]:
    """Return a checkup as lines for a person: each check, and below it what to do."""
    lines: list[str] = []
    for check in checkup.checks:
        lines.append(f"{check.state:<7}  {check.name}: {check.detail}")
        if check.advice is not None:
            lines.append(f"{'':<7}  -> {check.advice}")
    return lines
