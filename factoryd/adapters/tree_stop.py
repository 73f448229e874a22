"""Who in a process tree gets a signal, in which order, and what came of it."""

import os
import signal
from collections.abc import Callable, Mapping

import msgspec

from factoryd.adapters.pidfd import PidFd, Verdict, open_verified
from factoryd.adapters.proc import Stat, list_ancestors, read_names
from factoryd.core.model import Data, ProcessIdentity, Skipped, StopOrder, StopPolicy

Sent = dict[ProcessIdentity, tuple[signal.Signals, ...]]


class Plan(Data, frozen=True, kw_only=True):
    """Whom to signal, in order, and whom to leave alone."""

    targets: tuple[Stat, ...]
    skipped: tuple[Skipped, ...] = ()


class Delivered(Data, frozen=True, kw_only=True):
    """Who got which signals, in order of delivery, and who got none for which reason.

    `gone` ended by itself before its signal, be it after the proof of its identity: no less ended.
    """

    reached: Sent = msgspec.field(default_factory=Sent)
    gone: tuple[ProcessIdentity, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def plan_stop(
    members: Mapping[int, Stat],
    root: int | None,
    order: StopOrder,
    is_protected: Callable[[int], bool],
) -> Plan:
    """Return the members in order: every process after its children, the root last of all.

    Root-first is the exact reverse. Protected members are left out, and so is all below them.
    """
    children: dict[int, list[int]] = {}
    for stat in members.values():
        children.setdefault(stat.ppid, []).append(stat.pid)
    tops = [pid for pid, stat in members.items() if stat.ppid not in members and pid != root]
    if root is not None and root in members:
        tops.insert(0, root)
    skipped: dict[int, str] = {}
    walked: dict[int, None] = {}
    # Parents that were read before their pid was reused may form a ring: its members have no top.
    for start in (*tops, *members):
        queue = [start]
        for pid in queue:  # grows while it is walked
            if pid in walked or pid in skipped:
                continue
            if is_protected(pid):
                skipped[pid] = "protected"
                skipped.update(_below(pid, children, skipped))
                continue
            walked[pid] = None
            queue.extend(children.get(pid, ()))
    targets = [members[pid] for pid in walked if pid not in skipped]
    if order is StopOrder.CHILDREN_FIRST:
        targets.reverse()
    return Plan(
        targets=tuple(targets),
        skipped=tuple(Skipped(pid=pid, reason=reason) for pid, reason in skipped.items()),
    )


def _below(pid: int, children: Mapping[int, list[int]], known: Mapping[int, str]) -> dict[int, str]:
    """Return all descendants of a protected process, with the reason to leave them alone."""
    found: dict[int, str] = {}
    queue = list(children.get(pid, ()))
    for child in queue:  # grows while it is walked
        if child not in found and child not in known and child != pid:
            found[child] = f"below the protected process {pid}"
            queue.extend(children.get(child, ()))
    return found


def protection(policy: StopPolicy, root: int | None) -> Callable[[int], bool]:
    """Return the test for protected processes: the policy's, ourselves and our ancestors.

    The root is our own shim, known by more than its name: names do not protect it.
    """
    pids = policy.protected_pids | list_ancestors(os.getpid())
    commands = policy.protected_commands

    def is_protected(pid: int) -> bool:
        if pid in pids:
            return True
        return bool(commands) and pid != root and not commands.isdisjoint(read_names(pid))

    return is_protected


def deliver(
    targets: tuple[Stat, ...], number: signal.Signals, holds: Callable[[int], bool]
) -> Delivered:
    """Signal each target that is still who it was, and still a member by `holds`.

    One that is stopped is continued afterwards, or it could never act on the signal.
    """
    reached = Sent()
    gone: list[ProcessIdentity] = []
    skipped: list[Skipped] = []
    for stat in targets:
        try:
            verdict = _deliver_one(stat, number, holds)
        except OSError as error:
            skipped.append(Skipped(pid=stat.pid, reason=f"not signalled: {error.strerror}"))
            continue
        match verdict:
            case Verdict.GONE:
                gone.append(stat.identity)
            case Verdict():
                skipped.append(Skipped(pid=stat.pid, reason=verdict))
            case _:
                reached[stat.identity] = verdict
    return Delivered(reached=reached, gone=tuple(gone), skipped=tuple(skipped))


def _deliver_one(
    stat: Stat, number: signal.Signals, holds: Callable[[int], bool]
) -> tuple[signal.Signals, ...] | Verdict:
    """Return the signals that were sent, or why there was none."""
    match open_verified(stat.identity):
        case PidFd() as process:
            with process:
                if not holds(stat.pid):
                    return Verdict.MISMATCH
                verdict = process.send(number)
                if verdict is not Verdict.SENT:
                    return verdict
                wake = stat.state == "T" and number is not signal.SIGKILL
                if wake and process.send(signal.SIGCONT) is Verdict.SENT:
                    return number, signal.SIGCONT
                return (number,)
        case verdict:
            return verdict
