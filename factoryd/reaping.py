"""`factoryd reap`: ends what a dead daemon has left, from outside and in a fixed order.

Liveness, lock, ledger, protected set, names, verification, emptying, report. The ledger is only
read: the next daemon closes the records, by what it finds.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import assert_never

import trio

from factoryd.adapters.directories import Directories
from factoryd.adapters.heartbeat_file import read_heartbeat, read_living
from factoryd.adapters.lock import InstanceLock, read_holder
from factoryd.adapters.orphans import OrphanTrees
from factoryd.adapters.pidfd import PidFd, Verdict, open_verified
from factoryd.adapters.scan import scan
from factoryd.adapters.sqlite_store import read_registry
from factoryd.core.config import Config
from factoryd.core.errors import (
    AlreadyRunning,
    ConfigInvalid,
    LedgerUnavailable,
    PermissionDenied,
    SurvivorsRemain,
)
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.liveness import Alive, Dead, Holder, Hung, Liveness, ServiceEnd, judge, why_kept
from factoryd.core.lookup import Alone, Known, Sorted, sort_out
from factoryd.core.model import Data, ProcessIdentity, TreePlace
from factoryd.core.records import StopRule
from factoryd.core.registry import Registry
from factoryd.daemon import raise_descriptor_limit, tree_root_name
from factoryd.flow.stopping import stop_policy
from factoryd.flow.sweeping import preview, reap_reply, sweep
from factoryd.wire.answers import ReapReply

KILLED_WITHIN_S = 10.0
"""How long a killed daemon may take to be gone."""

NOTHING = "nothing was reaped"
UNKNOWN = "not signalled: neither the configuration nor the ledger says what is protected"


class Wanted(Data, frozen=True, kw_only=True):
    """What is asked for. `after`: how the service ended that this is called for, if it is."""

    directories: Directories
    dry_run: bool = False
    force: bool = False
    after: ServiceEnd | None = None


class Outcome(Data, frozen=True, kw_only=True):
    """What came of it; `notes` are for a person. `refused`: nothing was even looked for."""

    reply: ReapReply
    refused: bool = False
    notes: tuple[str, ...] = ()
    exit_status: int = 0


async def reap(wanted: Wanted, load: Callable[[], Config]) -> Outcome:
    """Empty every tree of a daemon that is dead, or that hangs and is to be killed.

    No daemon can start meanwhile. `load` returns the configuration or raises `ConfigInvalid`.
    Raises `PermissionDenied`, and `SurvivorsRemain` for a daemon that does not die.
    """
    with ExitStack() as held:
        found = liveness = _look(wanted, held)
        if isinstance(found, Hung) and wanted.force:
            liveness = await _end(found, wanted, held)
        if not isinstance(liveness, Dead):
            return _refuse(liveness)
        if wanted.after is not None:
            beat = read_heartbeat(_heartbeat(wanted.directories))
            kept = why_kept(wanted.after, beat.status if isinstance(beat, Heartbeat) else None)
            if kept is not None:
                return Outcome(
                    reply=ReapReply(daemon="dead"), refused=True, notes=(f"{NOTHING}: {kept}",)
                )
        return await _sweep(wanted, load, "hung" if isinstance(found, Hung) else "dead")


# --------------------------------------------------------------------------------------- liveness


def _look(wanted: Wanted, held: ExitStack) -> Liveness:
    """Return how the daemon is; when it is dead, its locks are held from now on."""
    directories = wanted.directories
    state, runtime = directories.state.resolve(), directories.runtime.resolve()
    holder = _lock(state, wanted, held)
    if holder is None and runtime != state:
        stranger = _lock(runtime, wanted, held)
        if stranger is not None:
            reason = f"process {stranger.pid}, which does not work on {state}, has {runtime}"
            return Hung(
                reason=f"{reason}: give the --runtime-dir that belongs to it", identity=None
            )
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return judge(holder, read_living(_heartbeat(directories)), boottime)


def _lock(directory: Path, wanted: Wanted, held: ExitStack) -> Holder | None:
    """Take a directory's lock, or only look at it; return who has it, None when nobody did."""
    path = directory / "lock"
    if wanted.dry_run:
        return read_holder(path)
    if not directory.is_dir():
        return None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionDenied(
            f"{directory}: you may not change it: ask as root or as the user factoryd runs as"
        )
    try:
        lock = InstanceLock(path, reaping=True)
    except AlreadyRunning:
        return read_holder(path) or Holder(pid=None)
    held.callback(lock.close)
    return None


def _heartbeat(directories: Directories) -> Path:
    return directories.runtime / "heartbeat"


async def _end(hung: Hung, wanted: Wanted, held: ExitStack) -> Liveness:
    """Kill a daemon that hangs, if it is proven who that is, and return how things are then."""
    if hung.identity is None:
        return hung
    if wanted.dry_run:
        return Dead()
    match open_verified(hung.identity):
        case PidFd() as daemon:
            with daemon:
                if isinstance(liveness := _look(wanted, held), Hung):
                    await _kill(daemon, hung.identity)
                    return _look(wanted, held)
                return liveness  # it has come back, or has ended, since it was looked at
        case _:
            return _look(wanted, held)


async def _kill(daemon: PidFd, identity: ProcessIdentity) -> None:
    if daemon.send(signal.SIGKILL) is Verdict.DENIED:
        raise PermissionDenied(
            f"you may not end factoryd (pid {identity.pid}): ask as root or as its own user"
        )
    with trio.move_on_after(KILLED_WITHIN_S):
        await daemon.wait_ended()
        return
    raise SurvivorsRemain(
        f"{NOTHING}: factoryd (pid {identity.pid}) is alive {KILLED_WITHIN_S:g} s after SIGKILL"
    )


def _refuse(liveness: Alive | Hung) -> Outcome:
    match liveness:
        case Alive(reason=reason):
            daemon, way_out = "alive", "ask it with `factoryctl reap-orphans`"
        case Hung(reason=reason, identity=None):
            daemon, way_out = "hung", "who that is cannot be verified: end it, then try again"
        case Hung(reason=reason):
            daemon = "hung"
            way_out = "restart it to keep its agents, or say --force to end it and all of them"
        case _:
            assert_never(liveness)
    note = f"{NOTHING}: {reason}: {way_out}"
    return Outcome(reply=ReapReply(daemon=daemon), refused=True, notes=(note,), exit_status=1)


# ------------------------------------------------------------------------------------------ sweep


class _Past(Data, frozen=True, kw_only=True):
    """What the dead daemon has left in writing."""

    known: tuple[Known, ...] = ()
    places: tuple[TreePlace, ...] = ()
    """Where trees are or were, those of ended runs too."""
    rule: StopRule | None = None
    notes: tuple[str, ...] = ()
    exit_status: int = 0


async def _sweep(wanted: Wanted, load: Callable[[], Config], daemon: str) -> Outcome:
    past = _read(wanted.directories.state, load)
    name = tree_root_name(wanted.directories.state)
    trees = OrphanTrees(name, wanted.directories.state, past.places)
    found = _find(trees, past.known)
    if past.rule is None:
        unknown = [
            Alone(agent=one.agent, pid=None, reason=UNKNOWN, unproven=True) for one in found.owed
        ]
        reply = reap_reply(daemon, [], [*found.alone, *unknown])
    elif wanted.dry_run:
        reply = reap_reply(daemon, await preview(trees, found.owed, past.rule), found.alone)
    else:
        raise_descriptor_limit()
        reply = reap_reply(daemon, await sweep(trees, found.owed, past.rule), found.alone)
    survivors = reply.survivors > 0 and not wanted.dry_run
    status = SurvivorsRemain.exit_status if survivors else past.exit_status
    return Outcome(reply=reply, notes=past.notes, exit_status=status)


def _read(state: Path, load: Callable[[], Config]) -> _Past:
    """Return what the ledger knows, and how to stop: as configured, else as the ledger has it."""
    registry, notes, status = Registry(), list[str](), 0
    try:
        registry = read_registry(state)
    except LedgerUnavailable as error:
        notes.append(f"only what is found without a ledger is reaped: {error}")
        status = error.exit_status
    rule = registry.stop_rule
    try:
        config = load()
    except ConfigInvalid as error:
        notes.append(f"agents are stopped as the last daemon stopped them: {error}")
    else:
        policy = stop_policy(config.stop, config.protect)
        rule = StopRule(policy=policy, grace_s=config.stop.grace)
    runs = [run for issue in registry.issues.values() for run in issue.runs.values()]
    live = [Known(place=run.place, identity=run.identity) for run in runs if run.live]
    handed = [
        Known(place=one.place, identity=one.identity, asked=True)
        for one in registry.handoffs.values()
    ]
    known = (*live, *handed)
    places = (*(run.place for run in runs), *(one.place for one in handed))
    return _Past(known=known, places=places, rule=rule, notes=tuple(notes), exit_status=status)


def _find(trees: OrphanTrees, known: Sequence[Known]) -> Sorted:
    """Return the trees there are, recorded or not, sorted out."""
    sorted_ = sort_out(known, scan())
    try:
        strays = trees.list_strays(frozenset(one.place.run for one in known))
    except OSError as error:
        reason = f"unresolved: trees without a record cannot be listed: {error.strerror}"
        alone = Alone(agent="", pid=None, reason=reason, unproven=True)
        return Sorted(owed=sorted_.owed, alone=(*sorted_.alone, alone))
    owed = (*sorted_.owed, *(Known(place=stray, identity=None) for stray in strays))
    return Sorted(owed=owed, alone=sorted_.alone)
