"""Process trees where no cgroup can be made: kept together by a mark that every process inherits.

The shim sets a limit that no kernel enforces (RLIMIT_RSS) to a number of its run's own. Whatever
the run starts inherits it through fork, exec, setsid and an emptied environment, and anyone may
read it. Besides the mark, a process belongs to a run by descent, by session while its shim lives,
and by `FACTORY_RUN` in its environment. As a child subreaper the daemon inherits its orphans.

What this cannot hold: a process that lowers that limit itself, empties its environment, starts a
session and loses its parent, all between two sweeps; and one that forks anew faster than /proc can
be read. The first is missed, the second shows as survivors.
"""

import contextlib
import ctypes
import os
import threading  # noqa: TID251 (a lock between threads that trio made)
from collections.abc import Collection, Sequence
from pathlib import Path

import trio
from msgspec import structs

from factoryd.adapters.cgroup import LEAF_MISMATCH, Leaf, LeafGroup, read_inode
from factoryd.adapters.group import Group
from factoryd.adapters.launch import launch, parse_shim
from factoryd.adapters.pidfd import identify, reap, verify
from factoryd.adapters.proc import (
    TICKS_PER_SECOND,
    Stat,
    boot_id,
    list_ancestors,
    read_argv,
    read_env,
)
from factoryd.adapters.run_tree import LOOKING, RunTree
from factoryd.adapters.standstill import Standstill
from factoryd.adapters.sweep import Sweeper, Swept, mark_of, read_mark, read_run
from factoryd.adapters.usage import measure
from factoryd.core.errors import FactoryError
from factoryd.core.model import (
    Command,
    Containment,
    ProcessIdentity,
    RunId,
    TreePlace,
    Usage,
    Victim,
)
from factoryd.ports import Tree

_PR_SET_CHILD_SUBREAPER = 36
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.001, 0.05


def set_subreaper(*, on: bool) -> None:
    """Make this process the one that inherits its descendants' orphans, or no longer."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) != 0:
        raise FactoryError(f"orphans cannot be inherited: {os.strerror(ctypes.get_errno())}")


class MarkedGroup:
    """The processes of one run, found by sweeping /proc. See `group.Group`.

    `leaf` is the one they were moved out of, if they ever had one.
    """

    waits = True

    def __init__(
        self,
        sweeper: Sweeper,
        place: TreePlace,
        root: ProcessIdentity | None,
        leaf: Leaf | None = None,
    ) -> None:
        self._sweeper = sweeper
        self._mark = mark_of(sweeper.name, place.run)
        self._run = place.run
        self._standstill = Standstill(place.directory)
        self._root = root
        self._leaf = leaf
        self._lock = threading.Lock()
        sweeper.reach_back(root.start_ticks if root is not None else 0)
        self._seen: dict[int, int] = {}
        """Start of every member seen alive: a member stays one, whatever it does to itself."""
        self._cpu_ticks: int | None = None

    def list_members(self) -> dict[int, Stat]:
        """Return every process that belongs to the run; orphans of it that ended are reaped."""
        if self._root is not None and self._root.boot_id != boot_id():
            return {}
        with self._lock:
            return self._find(self._sweeper.sweep(quick=True)) or self._find(self._sweeper.sweep())

    def _find(self, swept: Swept) -> dict[int, Stat]:
        root = self._root
        tops = [*swept.list_marked(self._mark), *swept.list_started_for(self._run)]
        if root is not None and verify(root) is None:
            tops += swept.list_session(root.pid)
        for pid, start_ticks in self._seen.items():
            if pid in swept.seen and swept.seen[pid].stat.start_ticks == start_ticks:
                tops.append(pid)
        members: dict[int, Stat] = {}
        for pid in swept.list_with_descendants(tops):
            stat = swept.seen[pid].stat
            if not stat.ended:
                members[pid] = stat
            elif stat.ppid == os.getpid() and stat.identity != root:
                reap(stat.identity)
        self._seen = {pid: stat.start_ticks for pid, stat in members.items()}
        if members:
            cpu_ticks = sum(stat.cpu_ticks for stat in members.values())
            self._cpu_ticks = max(self._cpu_ticks or 0, cpu_ticks)
        return members

    def among(self, pids: Collection[int]) -> set[int]:
        """Return which of these belong: who was proven to be the one found is proven to belong."""
        return self._seen.keys() & pids

    async def freeze(self) -> None:
        """Stop every process; return once two sweeps in a row have found all standing still."""
        pause_s, still = _LEAST_PAUSE_S, 0
        before = frozenset[ProcessIdentity]()
        while still < 2:
            moving = await trio.to_thread.run_sync(self._stop_members, limiter=LOOKING)
            still = 0 if moving else still + 1
            if moving and moving == before:  # nobody new: the kernel has yet to stop them
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, _MOST_PAUSE_S)
            before = moving

    def _stop_members(self) -> frozenset[ProcessIdentity]:
        with self._lock:
            stop = self._standstill.stop
            quick = stop(self._find(self._sweeper.sweep(quick=True)).values())
            return quick or stop(self._find(self._sweeper.sweep()).values())

    def thaw(self) -> None:
        """Let those that `freeze` has stopped go on; who had stopped itself before stays stopped."""
        self._standstill.end()

    def kill(self) -> bool:
        """Return False: processes can only be killed one by one."""
        return False

    async def wait_empty(self) -> None:
        """Return once two sweeps in a row have found nobody."""
        pause_s, empty = _LEAST_PAUSE_S, 0
        while empty < 2:
            members = await trio.to_thread.run_sync(self.list_members, limiter=LOOKING)
            empty = 0 if members else empty + 1
            if members:
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, _MOST_PAUSE_S)

    def remove(self) -> Usage:
        """Return the highest sum of CPU seconds that a sweep has seen; tidy up after its leaf."""
        if self._leaf is not None:
            self._leaf.remove()
        cpu_s = None if self._cpu_ticks is None else self._cpu_ticks / TICKS_PER_SECOND
        return Usage(processes=0, cpu_s=cpu_s, memory_bytes=0)

    def find_victims(self) -> tuple[Victim, ...]:
        """Return nobody: the kernel's log names cgroups, and there is none."""
        return ()

    def measure(self) -> Usage:
        """Return what its processes use; the CPU time of orphans that have ended is missing."""
        return measure(self.list_members())


class SubreaperTrees:
    """Starts and finds trees without cgroups. See `ports.ProcessTrees`.

    Makes the whole process a child subreaper.
    """

    def __init__(self, name: str) -> None:
        self._sweeper = Sweeper(name)
        set_subreaper(on=True)

    @property
    def containment(self) -> Containment:
        """Return the containment in force."""
        return Containment.SUBREAPER

    @property
    def controllers(self) -> frozenset[str]:
        """Return no controllers: they are of cgroups."""
        return frozenset()

    def place(self, issue: str, agent: str, run: RunId, directory: str) -> TreePlace:
        """Return where a run's tree will live: nowhere in particular."""
        return TreePlace(run=run, issue=issue, agent=agent, directory=directory)

    async def start(self, place: TreePlace, command: Command) -> Tree:
        """Start the command, marked; raise `CannotStart` and leave nothing behind."""
        return await trio.to_thread.run_sync(self._start, place, command)

    def _start(self, place: TreePlace, command: Command) -> Tree:
        env = {"FACTORY_RUN": place.run, **command.env}
        options = ("--mark", str(mark_of(self._sweeper.name, place.run)))
        process = launch(place, structs.replace(command, env=env), options)
        identity = identify(process.pid)
        return RunTree(place, MarkedGroup(self._sweeper, place, identity), identity, process)

    async def adopt(self, place: TreePlace, identity: ProcessIdentity | None) -> Tree:
        """Take over a run, whichever containment it was started in and whatever is left of it."""
        return await adopt(self._sweeper, place, identity)

    def list_strays(self, known: frozenset[RunId]) -> Sequence[TreePlace]:
        """Return the runs of this daemon that are not known and whose processes still tell theirs.

        A process with neither the shim's command line nor its environment cannot be placed.
        """
        return list_marked(self._sweeper.name, known)

    def owns(self, pid: int) -> bool | None:
        """Say whether a process is in any agent's tree, whichever daemon's; None when it is gone."""
        try:
            marks = {read_mark(each) for each in list_ancestors(pid)}
            if identify(pid) is None:
                return None
            ours = {None, read_mark(os.getpid())}  # our own, where a daemon's agent runs a daemon
            return bool(marks - ours)
        except OSError:
            return None

    def close(self) -> None:
        """Remove nothing: nothing was made to hold trees."""


def list_marked(name: str, known: frozenset[RunId]) -> Sequence[TreePlace]:
    """Return the marked runs of a daemon that are not known; see `SubreaperTrees.list_strays`."""
    strays: dict[RunId, TreePlace] = {}
    everyone = Sweeper(name)
    everyone.reach_back(0)
    for pid, seen in everyone.sweep().seen.items():
        if seen.mark is None:
            continue
        options = parse_shim(read_argv(pid)) or {}
        run = RunId(options.get("--run") or read_run(pid) or "")
        ours = seen.mark == mark_of(name, run) and run not in known
        if ours and (options or run not in strays):
            status = options.get("--status")
            strays[run] = TreePlace(
                run=run,
                issue=read_env(pid, "FACTORY_ISSUE") or "",
                agent=options.get("--agent-name", ""),
                directory=str(Path(status).parent) if status else "",
            )
    return list(strays.values())


async def adopt(sweeper: Sweeper, place: TreePlace, identity: ProcessIdentity | None) -> Tree:
    """Return the tree of an earlier daemon's run, by its leaf or, where it had none, its mark.

    A root that is alive while its leaf is gone was moved out of it: then its descendants and its
    session are what can be told of its tree. A leaf that is another's is none.
    """
    inode = read_inode(Path(place.cgroup)) if place.cgroup is not None else None
    is_another = inode is not None and place.cgroup_inode not in (None, inode)
    if inode is not None and place.cgroup_inode is None:
        place = structs.replace(place, cgroup_inode=inode)
    is_homeless = inode is None or is_another
    leaf = Leaf(Path(place.cgroup), place.cgroup_inode) if place.cgroup is not None else None
    if leaf is None or (is_homeless and identity is not None and verify(identity) is None):
        group: Group = MarkedGroup(sweeper, place, identity, leaf)
    else:
        group = LeafGroup(leaf)
    if identity is None:
        identity = await trio.to_thread.run_sync(_find_shim, group, place.run, limiter=LOOKING)
    return RunTree(place, group, identity, fault=LEAF_MISMATCH if is_another else None)


def _find_shim(group: Group, run: RunId) -> ProcessIdentity | None:
    """Return the shim of a run whose start was recorded and whose pid was not."""
    with contextlib.suppress(OSError):
        for pid, stat in group.list_members().items():
            options = parse_shim(read_argv(pid))
            if options is not None and options.get("--run") == run:
                return stat.identity
    return None
