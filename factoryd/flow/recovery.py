"""Owes nothing to the past: empties trees that nobody owns, at the start and until they are gone."""

import logging
from collections.abc import Sequence

import trio

from factoryd.core.errors import FactoryError, IllegalFact, LedgerUnavailable
from factoryd.core.events import HandoffCleared
from factoryd.core.lookup import Known
from factoryd.core.model import RunId
from factoryd.core.records import StopRule
from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulse
from factoryd.flow.settings import Settings
from factoryd.flow.stopping import stop_policy
from factoryd.flow.sweeping import Swept, preview, reap_reply, sweep
from factoryd.ports import ProcessTrees
from factoryd.wire.answers import ReapReply

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 1.0


class Reaper:
    """Empties strays (trees the ledger does not know) and handoffs (trees it owes)."""

    def __init__(
        self, settings: Settings, ledger: Ledger, trees: ProcessTrees, pulse: Pulse
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._trees = trees
        self._pulse = pulse
        self._one_sweep = trio.Lock()

    @property
    def _rule(self) -> StopRule:
        config = self._settings.config
        policy = stop_policy(config.stop, config.protect)
        return StopRule(policy=policy, grace_s=config.stop.grace)

    @property
    def _every_s(self) -> float:
        return self._settings.config.reaper.interval

    async def empty_strays(self) -> int:
        """Empty every tree below our root that no live run and no handoff owns; return how many."""
        async with self._one_sweep:
            try:
                strays = await self._list_strays()
            except OSError as error:
                logger.warning("trees that no run owns cannot be listed: %s", error)
                return 0
            return len(await self._sweep(strays))

    async def run(self) -> None:
        """Look for strays now and again, and try handoffs with growing waits, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_sweeping)
            nursery.start_soon(self._keep_retrying)

    async def reap(self, *, dry_run: bool) -> ReapReply:
        """Do now what is done now and again, or say what that would be; return the account.

        Raises `FactoryError` when nobody can tell what there is, or facts cannot be written.
        """
        if dry_run:
            return reap_reply("alive", await preview(self._trees, await self._list(), self._rule))
        if self._ledger.trouble is not None:
            raise LedgerUnavailable(f"{self._ledger.trouble}; until then nothing can be reaped")
        async with self._one_sweep:
            return reap_reply("alive", await self._sweep(await self._list()))

    async def _keep_sweeping(self) -> None:
        while True:
            await self._settings.sleep(lambda config: config.reaper.interval)
            await self.empty_strays()

    async def _keep_retrying(self) -> None:
        wait_s = FIRST_RETRY_S
        while True:
            if not self._ledger.registry.handoffs:
                wait_s = FIRST_RETRY_S
                await self._ledger.wait_beyond(self._ledger.registry.seq)
                continue
            await self._wait_retry(wait_s)
            async with self._one_sweep:
                await self._sweep(self._list_handoffs())
            wait_s = min(wait_s * 2, self._every_s)

    async def _wait_retry(self, wait_s: float) -> None:
        await self._settings.sleep(lambda config: min(wait_s, config.reaper.interval))

    async def _list(self) -> list[Known]:
        try:
            strays = await self._list_strays()
        except OSError as error:
            raise FactoryError(f"trees cannot be listed: {error.strerror}: try again") from error
        return [*self._list_handoffs(), *strays]

    def _list_handoffs(self) -> list[Known]:
        return [
            Known(place=one.place, identity=one.identity, asked=True)
            for one in self._ledger.registry.handoffs.values()
        ]

    async def _list_strays(self) -> list[Known]:
        """Return the trees without a record; who is starting one meanwhile has recorded it."""
        nobody = frozenset[RunId]()
        with self._pulse.busy():
            trees = await trio.to_thread.run_sync(self._trees.list_strays, nobody)
        registry = self._ledger.registry
        known = {run.run for issue in registry.issues.values() for run in issue.live_runs}
        known |= {RunId(run) for run in registry.handoffs}
        return [Known(place=one, identity=None) for one in trees if one.run not in known]

    async def _sweep(self, owed: Sequence[Known]) -> list[Swept]:
        if not owed:
            return []
        rule = self._rule
        grace_s = 0.0 if all(one.asked for one in owed) else rule.grace_s
        with self._pulse.busy(grace_s) as go_on:
            swept = await sweep(self._trees, owed, rule, go_on)
        for one in swept:
            await self._note(one)
        return swept

    async def _note(self, one: Swept) -> None:
        assert one.report is not None
        place = one.known.place
        if place.run not in self._ledger.registry.handoffs:
            if one.was_there:
                outcome = "emptied" if one.report.emptied else "could not be emptied"
                killed = one.report.killed
                logger.warning(
                    "a tree that no run owns %s: %s, %d processes", outcome, place.run, killed
                )
            return
        if not one.report.emptied:
            return
        try:
            await self._ledger.record(
                HandoffCleared(issue=place.issue, run=place.run, report=one.report)
            )
        except (IllegalFact, LedgerUnavailable) as error:
            logger.warning("%s is proven empty, which could not be recorded: %s", place.run, error)
