"""Trees seen from outside the daemon that started them: found by what it left, never started."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from factoryd.adapters.cgroup import Leaf, find_roots, list_leaves
from factoryd.adapters.launch import parse_shim
from factoryd.adapters.proc import read_argv
from factoryd.adapters.subreaper import adopt, list_marked
from factoryd.adapters.sweep import Sweeper
from factoryd.core.model import ProcessIdentity, RunId, TreePlace
from factoryd.ports import Tree

logger = logging.getLogger(__name__)


class OrphanTrees:
    """The trees of a daemon that is dead. See `ports.FoundTrees`.

    `name` is the daemon's, `state` its state directory, `places` are what its ledger knows of.
    Nothing is made, not even a cgroup.
    """

    def __init__(self, name: str, state: Path, places: Iterable[TreePlace]) -> None:
        self._name = name
        self._state = state.resolve()
        self._sweeper = Sweeper(name)
        self._roots = {Path(one.cgroup).parents[2] for one in places if one.cgroup is not None}

    async def adopt(self, place: TreePlace, identity: ProcessIdentity | None) -> Tree:
        """Take over a run, whichever containment it was started in and whatever is left of it."""
        return await adopt(self._sweeper, place, identity)

    def list_strays(self, known: frozenset[RunId]) -> Sequence[TreePlace]:
        """Return the trees that are this daemon's and belong to no known run.

        A root that is named for the daemon holds nothing else. In any other, as a service's is,
        another daemon may have taken its place: there a leaf counts only with a shim in it that
        keeps its files in our state directory.
        """
        own = f"factoryd-{self._name}"
        strays = list(list_marked(self._name, known))
        for root in sorted(self._roots | set(find_roots(self._name))):
            for issue, run, leaf in list_leaves(root):
                if run in known:
                    continue
                if root.name == own or self._is_ours(leaf, run):
                    strays.append(
                        TreePlace(
                            run=RunId(run), issue=issue, agent="", directory="", cgroup=str(leaf)
                        )
                    )
                else:
                    logger.warning("%s is left alone: nothing in it says that it is ours", leaf)
        return strays

    def _is_ours(self, leaf: Path, run: str) -> bool:
        for pid in Leaf(leaf).list_pids():
            options = parse_shim(read_argv(pid)) or {}
            if options.get("--run") == run:
                return Path(options.get("--status", "/")).resolve().is_relative_to(self._state)
        return False
