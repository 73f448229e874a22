"""Process trees in control groups: one leaf per run, which nothing it starts can leave."""

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from factoryd.adapters.cgroup import (
    Leaf,
    LeafGroup,
    Unavailable,
    cgroup_of,
    leaf_path,
    list_leaves,
    prepare_root,
    read_inode,
)
from factoryd.adapters.controllers import find_controllers
from factoryd.adapters.hands import Hands
from factoryd.adapters.launch import launch
from factoryd.adapters.pidfd import identify
from factoryd.adapters.run_tree import RunTree
from factoryd.adapters.subreaper import SubreaperTrees, adopt
from factoryd.adapters.sweep import Sweeper
from factoryd.core.errors import FactoryError
from factoryd.core.model import Command, Containment, Limits, ProcessIdentity, RunId, TreePlace
from factoryd.ports import ProcessTrees, Tree

logger = logging.getLogger(__name__)

_STARTS_AT_ONCE = 2
"""One of them does not hold up the other; more would only wait for one another."""


def choose(name: str, wanted: str = "auto") -> ProcessTrees:
    """Return the containment to use: cgroups where they can be made, else the subreaper.

    `name` tells the daemons of one machine apart and stays the same over restarts. `wanted` is
    `auto`, `cgroup` or `subreaper`; raise `FactoryError` when what is wanted cannot be had.
    """
    if wanted == Containment.SUBREAPER:
        return SubreaperTrees(name)
    started_in = cgroup_of(os.getpid())
    match prepare_root(name):
        case Unavailable(reason=reason) if wanted == Containment.CGROUP:
            raise FactoryError(f"no cgroups can be made here: {reason}")
        case Unavailable(reason=reason):
            logger.warning("containment by subreaper, as no cgroups can be made here: %s", reason)
            return SubreaperTrees(name)
        case root:
            return CgroupTrees(name, root, find_controllers(root, Path(started_in or "/")))


class CgroupTrees:
    """Starts and finds trees below a prepared root. See `ports.ProcessTrees`."""

    def __init__(self, name: str, root: Path, controllers: frozenset[str] = frozenset()) -> None:
        self._sweeper = Sweeper(name)  # for runs of a time when there were no cgroups
        self._root = root
        self._controllers = controllers
        self._hands = Hands(_STARTS_AT_ONCE)

    @property
    def root(self) -> Path:
        """Return the directory that holds `agents/`."""
        return self._root

    @property
    def containment(self) -> Containment:
        """Return the containment in force."""
        return Containment.CGROUP

    @property
    def controllers(self) -> frozenset[str]:
        """Return the controllers that leaves have."""
        return self._controllers

    def place(self, issue: str, agent: str, run: RunId, directory: str) -> TreePlace:
        """Return where a run's tree will live; nothing is created."""
        leaf = leaf_path(self._root, issue, run)
        return TreePlace(run=run, issue=issue, agent=agent, directory=directory, cgroup=str(leaf))

    async def start(self, place: TreePlace, command: Command) -> Tree:
        """Start the command in a leaf of its own; raise `CannotStart` and leave nothing."""
        return await self._hands.do(_start, place, command, self._controllers)

    async def adopt(self, place: TreePlace, identity: ProcessIdentity | None) -> Tree:
        """Take over a run, whichever containment it was started in and whatever is left of it."""
        return await adopt(self._sweeper, place, identity)

    def list_strays(self, known: frozenset[RunId]) -> Sequence[TreePlace]:
        """Return the leaves of runs that are not known."""
        return [
            TreePlace(
                run=RunId(run),
                issue=issue,
                agent="",
                directory="",
                cgroup=str(leaf),
                cgroup_inode=read_inode(leaf),
            )
            for issue, run, leaf in list_leaves(self._root)
            if run not in known
        ]

    def owns(self, pid: int) -> bool | None:
        """Say whether a process is inside any leaf of ours; None when it is gone."""
        try:
            cgroup = cgroup_of(pid)
        except OSError:
            return None
        return None if cgroup is None else cgroup.startswith(f"{self._root}/agents/")

    def close(self) -> None:
        """Remove the root where it is ours alone and empty; what lives in it stays."""
        with contextlib.suppress(OSError):
            (self._root / "agents").rmdir()
            if self._root.name.startswith("factoryd-"):
                self._root.rmdir()


def _start(place: TreePlace, command: Command, controllers: frozenset[str]) -> Tree:
    assert place.cgroup is not None
    leaf = Leaf(Path(place.cgroup))

    def contain() -> Limits:
        leaf.create(controllers)
        return leaf.limit(command.limits)

    try:
        process = launch(place, command, ("--procs", str(leaf.procs)), contain)
    except BaseException:
        with contextlib.suppress(OSError):
            leaf.remove()
        raise
    place = replace(place, cgroup_inode=leaf.inode)
    return RunTree(place, LeafGroup(leaf), identify(process.pid), process)
