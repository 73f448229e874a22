"""How process trees are ended: asked, given a grace that they share, then killed and proven gone."""

import trio

from factoryd.core.config import ProtectConfig, StopConfig
from factoryd.core.model import StopPolicy, StopReport
from factoryd.ports import Tree


class Stopping:
    """The grace of one scope, which may be shortened while it is being waited for."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.keep = False
        """Leave running what still runs, for the next daemon: the one way out that ends nothing."""
        self._waiting = set[trio.CancelScope]()

    def shorten(self, grace_s: float) -> None:
        """Give no more than `grace_s` seconds from now on, also to those that wait already."""
        self.grace_s = min(self.grace_s, grace_s)
        for scope in self._waiting:
            scope.deadline = min(scope.deadline, trio.current_time() + grace_s)

    async def empty(self, tree: Tree, policy: StopPolicy) -> StopReport:
        """Stop a tree: the signal, the grace, the kill, the proof. Bounded; see `Tree.kill`."""
        with trio.move_on_after(self.grace_s) as grace:
            self._waiting.add(grace)
            try:
                await tree.terminate(policy)
            finally:
                self._waiting.discard(grace)
        return await tree.kill(policy)


def stop_policy(stop: StopConfig, protect: ProtectConfig) -> StopPolicy:
    """Return the configured way to stop a tree."""
    return StopPolicy(
        signal=stop.signal,
        order=stop.order,
        protected_pids=frozenset(protect.pids),
        protected_commands=frozenset(protect.commands),
    )
