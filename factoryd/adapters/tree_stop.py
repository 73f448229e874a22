"""Who in a process tree gets a signal, in which order, and what came of it."""

import os
import signal
from collections.abc import Callable, Collection, Container, Mapping
from contextlib import ExitStack
from functools import cache

import msgspec

from factoryd.adapters.pidfd import PidFd, Verdict, open_verified, verify
from factoryd.adapters.proc import Stat, list_ancestors, read_names
from factoryd.core.model import Data, ProcessIdentity, Skipped, StopOrder, StopPolicy

Sent = dict[ProcessIdentity, tuple[signal.Signals, ...]]
Members = Callable[[Collection[int]], Container[int]]
"""Says which of some processes are members at this moment; may raise `OSError`."""


AT_ONCE = 128
"""Processes that are held by their pidfds at once: proven first, then signalled one after another.

So proof and death do not take turns on the processor, and descriptors do not run out.
"""


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
    commands = policy.protected_commands

    def is_protected(pid: int) -> bool:
        if pid in policy.protected_pids or _is_ancestor(pid):
            return True
        return bool(commands) and pid != root and not commands.isdisjoint(read_names(pid))

    return is_protected


@cache
def _first_ancestors(pid: int) -> frozenset[int]:
    """Return all that a process can ever descend from: an orphan is given to one of these."""
    return list_ancestors(pid) | {1}


def _is_ancestor(pid: int) -> bool:
    """Say whether a process is ours or one we descend from, and not one that has such a pid now."""
    own = os.getpid()
    return pid in _first_ancestors(own) and (pid == 1 or pid in list_ancestors(own))


def deliver(targets: tuple[Stat, ...], number: signal.Signals, members: Members) -> Delivered:
    """Signal each target that is still who it was, and still among the members.

    One that is stopped is continued afterwards, or it could never act on the signal.
    """
    tally = _Tally()
    for begin in range(0, len(targets), AT_ONCE):
        _deliver_some(targets[begin : begin + AT_ONCE], number, members, tally)
    return Delivered(reached=tally.reached, gone=tuple(tally.gone), skipped=tuple(tally.skipped))


class _Tally:
    """What came of each target."""

    def __init__(self) -> None:
        self.reached = Sent()
        self.gone: list[ProcessIdentity] = []
        self.skipped: list[Skipped] = []

    def note(self, stat: Stat, outcome: tuple[signal.Signals, ...] | Verdict | OSError) -> None:
        """Note the signals that were sent, or why there was none."""
        match outcome:
            case Verdict.GONE:
                self.gone.append(stat.identity)
            case Verdict():
                self.skipped.append(Skipped(pid=stat.pid, reason=outcome))
            case OSError():
                reason = f"not signalled: {outcome.strerror}"
                self.skipped.append(Skipped(pid=stat.pid, reason=reason))
            case _:
                self.reached[stat.identity] = outcome


def _deliver_some(
    targets: tuple[Stat, ...], number: signal.Signals, members: Members, tally: _Tally
) -> None:
    with ExitStack() as opened:
        held: dict[int, tuple[Stat, PidFd]] = {}
        for stat in targets:
            found = _open(stat)
            if isinstance(found, PidFd):
                held[stat.pid] = stat, opened.enter_context(found)
            else:
                tally.note(stat, found)
        try:
            inside = members(held.keys())
        except OSError as error:
            for stat, _ in held.values():
                tally.note(stat, error)
            return
        for stat, process in held.values():
            if stat.pid in inside:
                tally.note(stat, _send(process, stat, number))
            else:  # it is in another tree now, or has ended since it was opened
                tally.note(stat, verify(stat.identity) or Verdict.MISMATCH)


def _open(stat: Stat) -> PidFd | Verdict | OSError:
    """Return a handle on a target that is still who it was, or why there is none."""
    try:
        return open_verified(stat.identity)
    except OSError as error:
        return error


def _send(
    process: PidFd, stat: Stat, number: signal.Signals
) -> tuple[signal.Signals, ...] | Verdict | OSError:
    """Return the signals that were sent, or why there was none."""
    try:
        verdict = process.send(number)
        if verdict is not Verdict.SENT:
            return verdict
        wake = stat.state == "T" and number is not signal.SIGKILL
        if wake and process.send(signal.SIGCONT) is Verdict.SENT:
            return number, signal.SIGCONT
    except OSError as error:
        return error
    return (number,)
