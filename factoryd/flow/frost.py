"""Freezes and thaws the runs of an issue, and stops their stall clocks meanwhile."""

import logging
from collections.abc import Awaitable
from typing import Protocol

import trio

from factoryd.core.events import IssueFrozen, IssueThawed
from factoryd.core.model import Data, RunId
from factoryd.core.records import same_issue
from factoryd.flow.ledger import Ledger
from factoryd.ports import Tree

logger = logging.getLogger(__name__)

SETTLE_S = 5.0
"""How long is waited for runs to stand still, or to move again, before it is reported how many do."""


class Settled(Data, frozen=True, kw_only=True):
    """How many of an issue's runs do by now what was asked of them, and how many do not yet."""

    done: int
    late: int


class Watched(Protocol):
    """A run whose scope is open. `last_sign` is when it last did something, in trio's time."""

    tree: Tree
    last_sign: float


class Frost:
    """Knows which runs stand still; that their issue is frozen is in the ledger, and only there.

    The ledger says frozen before the first tree is, and until the last one no longer is: a daemon
    that dies in between freezes again what it takes over, and never finds a tree to be thawed.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._still: dict[RunId, bool] = {}
        """Runs whose clock stands still; False until the whole tree does, too."""
        self._inherited = {
            run.run
            for issue in ledger.registry.issues.values()
            if issue.frozen
            for run in issue.live_runs
        }
        """Runs that an earlier daemon may have left standing, and that nobody follows yet."""
        self._thawing = set[str]()
        self._changes: dict[str, trio.Event] = {}

    async def freeze(self, key: str, reason: str) -> Settled:
        """Record that an issue is frozen, then wait until all its runs stand still, bounded.

        Raises `IllegalFact` when it cannot be frozen now. What does not stand still in time will
        as soon as the kernel lets it.
        """
        await self._ledger.record(IssueFrozen(issue=key, reason=reason))
        return await self._settle(key)

    async def thaw(self, key: str) -> Settled:
        """Have all runs of an issue go on, then record that it does.

        Raises `IllegalFact` when it is not frozen.
        """
        self._thawing.add(same_issue(key))
        try:
            settled = await self._settle(key)
            await self._ledger.record(IssueThawed(issue=key))
        finally:
            self._thawing.discard(same_issue(key))
            self.tell(key)
        return settled

    def is_frozen(self, key: str) -> bool:
        """Say whether the ledger has an issue as frozen, so that nothing of it may start."""
        record = self._ledger.registry.issue(key)
        return record is not None and record.frozen

    async def wait_thawed(self, key: str) -> None:
        """Return once the issue is not frozen; at once when it is not."""
        while self.is_frozen(key):
            await self._change(key)

    def is_still(self, run: RunId) -> bool:
        """Say whether the clock of a run stands still."""
        return run in self._still

    async def wait_moving(self, live: Watched) -> None:
        """Return once a run's clock does not stand still; at once when it does not."""
        while self.is_still(live.tree.place.run):
            await self._change(live.tree.place.issue)

    async def follow(self, live: Watched) -> None:
        """Have a run stand still whenever its issue is frozen, until cancelled."""
        key, run = live.tree.place.issue, live.tree.place.run
        stands = run in self._inherited
        self._inherited.discard(run)
        try:
            while True:
                # One that was left standing is thawed in the end, whatever has happened meanwhile.
                while not (stands or self._is_to_stand(key)):
                    await self._change(key)
                stands = False
                since = trio.current_time()
                self._still[run] = False
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._freeze, live)
                    while self._is_to_stand(key):
                        await self._change(key)
                    nursery.cancel_scope.cancel(reason="it is to go on, even if it never stood")
                await _try(live.tree.thaw(), f"{run} cannot be thawed")
                live.last_sign = trio.current_time() - max(0.0, since - live.last_sign)
                del self._still[run]
                self.tell(key)
        finally:
            self._still.pop(run, None)
            self.tell(key)

    async def _freeze(self, live: Watched) -> None:
        place = live.tree.place
        self._still[place.run] = await _try(live.tree.freeze(), f"{place.run} cannot be frozen")
        self.tell(place.issue)

    def tell(self, key: str) -> None:
        """Have whoever waits for a change of an issue look again."""
        change = self._changes.pop(same_issue(key), None)
        if change is not None:
            change.set()

    def _is_to_stand(self, key: str) -> bool:
        return self.is_frozen(key) and same_issue(key) not in self._thawing

    async def _change(self, key: str) -> None:
        await self._changes.setdefault(same_issue(key), trio.Event()).wait()

    async def _settle(self, key: str) -> Settled:
        self.tell(key)
        with trio.move_on_after(SETTLE_S):
            await trio.lowlevel.checkpoint()
            while self._count(key).late:
                await self._change(key)
        return self._count(key)

    def _count(self, key: str) -> Settled:
        record = self._ledger.registry.issue(key)
        runs = [run.run for run in record.live_runs if run.exit is None] if record else []
        still = sum(self._still.get(run, False) for run in runs)
        moving = sum(run not in self._still and run not in self._inherited for run in runs)
        done = still if self._is_to_stand(key) else moving
        return Settled(done=done, late=len(runs) - done)


async def _try(call: Awaitable[None], trouble: str) -> bool:
    """Say whether a tree could do it; what the kernel refuses is reported and costs no run."""
    try:
        await call
    except OSError as error:
        logger.error("%s: %s", trouble, error.strerror)  # noqa: TRY400  a sentence for a person
        return False
    return True
