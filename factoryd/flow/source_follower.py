"""Follows one source: asks it when something changed, at least once in a poll interval."""

import logging
from collections.abc import Callable, Sequence

import trio

from factoryd.core.closing import GONE_FOR_S, tell_closed
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Closed, Issue, Listing, Problem
from factoryd.flow.pulse import Pulse
from factoryd.flow.settings import Settings
from factoryd.ports import IssueSource

logger = logging.getLogger(__name__)

FAILED_RETRY_S = 5.0
"""How long a source that failed is left alone, unless the poll interval is shorter."""


LEAST_PAUSE_S = 0.05
"""Between two looks at a source, so that many changes at once are seen together."""

PAUSE_SHARE = 10
"""The pause is also this many times as long as the look took: claims wait while a source lists."""

MOST_PAUSE_S = 1.0
"""However long a look takes, a change is not left alone for longer."""


_REMEMBERED = 100


class SourceFollower:
    """The newest listing of one source, and the trouble with it."""

    def __init__(
        self,
        source: IssueSource,
        settings: Settings,
        pulse: Pulse,
        claimed: Callable[[], Sequence[Issue]] = tuple,
    ) -> None:
        """Prepare to follow; that the issues of `claimed` are still there is looked at, too."""
        self.source = source
        self.pulse = pulse
        self.listing = Listing()
        self.trouble: str | None = None
        self.asked = 0
        self.failed = set[int]()
        """Which times of asking did not work, of the first few."""
        self.complete = False
        """Whether `listing` is a whole one: the last time of asking worked."""
        self.closed: tuple[Closed, ...] = ()
        """Which issues of this source in flight others have ended, as the last look showed."""
        self._missing: dict[str, float] = {}
        self._settings = settings
        self._claimed = claimed
        self._following = trio.CancelScope()
        self._waiting = trio.CancelScope()
        self._asking = trio.Lock()
        self._reported = frozenset[Problem]()

    @property
    def name(self) -> str:
        """Return the source's name."""
        return self.source.name

    @property
    def kind(self) -> str:
        """Return the source's kind."""
        return self.source.kind

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep the listing up to date until stopped, calling `changed` after each look."""
        try:
            with self._following:
                while True:
                    began = trio.current_time()
                    await self.ask()
                    changed()
                    await self._wait_turn(trio.current_time() - began)
        finally:
            self.source.close()
        changed()

    def stop(self) -> None:
        """Have `run` return: the source is not asked any more."""
        self._following.cancel(reason="the source left the configuration")

    def look_again(self) -> None:
        """Ask the source now, unless it is being asked."""
        self._waiting.cancel(reason="the configuration was loaded anew")

    async def _wait_turn(self, took_s: float) -> None:
        """Return when the source is to be asked again, after a look that took so many seconds."""
        poll_s = self._settings.config.factory.poll_interval
        with trio.CancelScope() as self._waiting:
            if self.trouble is not None:
                await trio.sleep(min(FAILED_RETRY_S, poll_s))
                return
            pause_s = min(max(LEAST_PAUSE_S, PAUSE_SHARE * took_s), MOST_PAUSE_S)
            await trio.sleep(min(pause_s, poll_s))
            with trio.move_on_after(min(GONE_FOR_S, poll_s) if self._missing else poll_s):
                await self._wait_change()

    async def ask(self) -> None:
        """Take a new listing; a source that fails keeps its old one and is reported once."""
        async with self._asking:
            try:
                with self.pulse.busy():
                    listing = await self.source.list_ready()
                    found = await self._find_closed()
            except SourceFailed as error:
                self._report_trouble(str(error))
            except Exception as error:
                logger.exception("source %s: an error inside factoryd", self.name)
                self._report_trouble(f"an error inside factoryd: {error!r}")
            else:
                # Both at once: what is ready again is not what was closed before.
                self.listing = listing
                self.closed, self._missing = tell_closed(found, self._missing, trio.current_time())
                if self.trouble is not None:
                    logger.info("source %s works again", self.name)
                self.trouble, self.complete = None, True
                self._report_problems()
            self.asked += 1
            if self.trouble is not None and self.asked <= _REMEMBERED:
                self.failed.add(self.asked)

    async def _find_closed(self) -> Sequence[Closed]:
        claimed = self._claimed()
        return await self.source.find_closed(claimed) if claimed else ()

    async def _wait_change(self) -> None:
        """Return when the source may have changed; one that cannot tell is polled."""
        try:
            await self.source.wait_change()
        except SourceFailed as error:
            logger.warning("source %s cannot tell changes, it is polled: %s", self.name, error)
        except Exception:
            logger.exception("source %s: an error inside factoryd", self.name)
        else:
            return
        await trio.sleep_forever()

    def _report_trouble(self, trouble: str) -> None:
        if trouble != self.trouble:
            logger.warning("source %s failed: %s", self.name, trouble)
        self.trouble, self.complete = trouble, False

    def _report_problems(self) -> None:
        problems = frozenset(self.listing.problems)
        for problem in sorted(problems - self._reported, key=lambda one: one.where):
            logger.warning("source %s: %s: %s", self.name, problem.where, problem.reason)
        self._reported = problems
