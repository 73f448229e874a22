"""Forgets finished issues when their time is over, so that nothing grows for ever."""

import logging

import trio

from factoryd.core.errors import LedgerUnavailable
from factoryd.core.retention import choose_forgettable
from factoryd.flow.ledger import Ledger
from factoryd.flow.settings import Settings
from factoryd.ports import Clock, Desk

logger = logging.getLogger(__name__)

EVERY_S = 3600.0


class Retention:
    """Drops finished issues: their facts, their files and those of their runs."""

    def __init__(self, settings: Settings, ledger: Ledger, desk: Desk, clock: Clock) -> None:
        self._settings = settings
        self._ledger = ledger
        self._desk = desk
        self._clock = clock

    async def run(self) -> None:
        """Look once an hour, and once at the beginning."""
        while True:
            try:
                await self.forget_old()
            except LedgerUnavailable as error:
                logger.warning("old issues could not be forgotten: %s", error)
            await trio.sleep(EVERY_S)

    async def forget_old(self) -> None:
        """Forget what is older or more than the configuration keeps."""
        now, history = self._clock.now(), self._settings.config.history
        keys = await self._ledger.forget(
            lambda registry: choose_forgettable(registry, history, now),
            now - history.keep,
        )
        for key in keys:
            await trio.to_thread.run_sync(self._desk.forget, key)
        if keys:
            logger.info("forgot %d finished issues", len(keys))
