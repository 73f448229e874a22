"""Owes nothing to the past: empties trees that nobody owns, at the start and until they are gone."""

import logging
from collections.abc import Sequence

import trio

from factoryd.core.config import Config
from factoryd.core.events import HandoffCleared
from factoryd.core.model import RunId, TreePlace
from factoryd.core.records import HandoffRecord
from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulse
from factoryd.flow.stopping import Stopping, stop_policy
from factoryd.ports import ProcessTrees

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 60.0
"""How often trees that could not be emptied are tried again, at the latest."""

FIRST_RETRY_S = 1.0


class Reaper:
    """Empties strays (trees the ledger does not know) and handoffs (trees it owes)."""

    def __init__(self, config: Config, ledger: Ledger, trees: ProcessTrees, pulse: Pulse) -> None:
        self._config = config
        self._ledger = ledger
        self._trees = trees
        self._pulse = pulse

    async def empty_strays(self) -> int:
        """Empty every tree below our root that no live run and no handoff owns; return how many."""
        registry = self._ledger.registry
        known = {run.run for issue in registry.issues.values() for run in issue.live_runs}
        known |= {RunId(run) for run in registry.handoffs}
        strays = await trio.to_thread.run_sync(self._trees.list_strays, frozenset(known))
        async with trio.open_nursery() as nursery:
            for stray in strays:
                nursery.start_soon(self._empty_stray, stray)
        return len(strays)

    async def run(self) -> None:
        """Try handoffs again, with growing waits, for as long as there are any."""
        wait_s = FIRST_RETRY_S
        while True:
            handoffs = list(self._ledger.registry.handoffs.items())
            if not handoffs:
                wait_s = FIRST_RETRY_S
                await self._ledger.wait_beyond(self._ledger.registry.seq)
                continue
            await trio.sleep(wait_s)
            with self._pulse.busy():
                await self._retry(handoffs)
            wait_s = min(wait_s * 2, SWEEP_EVERY_S)

    async def _retry(self, handoffs: Sequence[tuple[str, HandoffRecord]]) -> None:
        async with trio.open_nursery() as nursery:
            for run, handoff in handoffs:
                nursery.start_soon(self._retry_one, RunId(run), handoff)

    async def _retry_one(self, run: RunId, handoff: HandoffRecord) -> None:
        policy = stop_policy(self._config.stop, self._config.protect)
        tree = await self._trees.adopt(handoff.place, handoff.identity)
        try:
            report = await tree.kill(policy)
        finally:
            tree.close()
        if report.emptied:
            await self._ledger.record(
                HandoffCleared(issue=handoff.place.issue, run=run, report=report)
            )

    async def _empty_stray(self, place: TreePlace) -> None:
        policy = stop_policy(self._config.stop, self._config.protect)
        tree = await self._trees.adopt(place, None)
        try:
            report = await Stopping(self._config.stop.grace).empty(tree, policy)
        finally:
            tree.close()
        outcome = "emptied" if report.emptied else "could not be emptied"
        logger.warning(
            "a tree that no run owns %s: %s, %d processes", outcome, place.run, report.killed
        )
