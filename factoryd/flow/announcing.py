"""What the service manager is told: how the daemon is, and that it needs more time."""

from collections.abc import Awaitable, Callable

import trio

from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulses
from factoryd.flow.settings import Settings
from factoryd.flow.views import Overview
from factoryd.ports import Notifier

AT_MOST_EVERY_S = 0.5
"""The status is not told more often than this, however much happens."""

EXTEND_EVERY_S = 5.0
EXTEND_BY_S = 30.0
"""What is asked for at a time; who is silent for so long gets no more."""

PATIENCE_S = 600.0
"""Beyond the grace of agents no start and no stop takes longer than this, or it hangs."""


class Announcer:
    """Speaks to the service manager; it hears nothing."""

    def __init__(
        self,
        notifier: Notifier,
        overview: Overview,
        pulses: Pulses,
        ledger: Ledger,
        settings: Settings,
    ) -> None:
        self._notifier = notifier
        self._overview = overview
        self._pulses = pulses
        self._ledger = ledger
        self._settings = settings
        self._news = trio.Event()
        """Set when the daemon may not be as it was last shown."""

    async def run(self) -> None:
        """Speak until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show_status)
            nursery.start_soon(self._ask_for_time)
            nursery.start_soon(self._hear, self._next_fact)
            nursery.start_soon(self._hear, self._pulses.wait_beat)
            nursery.start_soon(self._hear, self._settings.wait_read)

    async def _show_status(self) -> None:
        while True:
            self._notifier.status(self._overview.headline())
            await self._news.wait()
            self._news = trio.Event()
            await trio.sleep(AT_MOST_EVERY_S)

    async def _hear(self, wait: Callable[[], Awaitable[None]]) -> None:
        while True:
            await wait()
            self._news.set()

    async def _next_fact(self) -> None:
        await self._ledger.wait_beyond(self._ledger.registry.seq)

    async def _ask_for_time(self) -> None:
        """Ask for more time to start or to stop, while there is progress, and not for ever."""
        state, since = self._pulses.state, trio.current_time()
        while True:
            if self._pulses.state == "running":
                await self._pulses.wait_beat()  # any other state begins with one
                continue
            if state != self._pulses.state:
                state, since = self._pulses.state, trio.current_time()
            longest_s = self._settings.config.stop.grace + PATIENCE_S
            patient = trio.current_time() - since < longest_s and not self._pulses.late()
            if patient:
                self._notifier.extend(EXTEND_BY_S)
            await trio.sleep(EXTEND_EVERY_S)
