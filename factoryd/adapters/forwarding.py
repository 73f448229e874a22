"""Agents' output on its way to the journal: each line with its agent as identifier, and bounded."""

import time
from collections.abc import Callable
from functools import partial

import trio

from factoryd.adapters.journald import MAX_JOURNAL_LINE, Journal
from factoryd.core.model import RunId, TreePlace
from factoryd.core.throttle import Throttle
from factoryd.ports import OutputSink

RATE_PERIOD_S = 30.0
"""journald counts in the same time (RateLimitIntervalSec= of journald.conf(5)), seconds."""

_BEHIND_S = 0.02
_UP_TO_DATE_S = 1.0


class JournalSink:
    """Forwards agents' output lines, each with its agent as identifier, and not too many of a run.

    As many lines of a run pass in 30 seconds as `rate` says (0: all) when its first one comes; where
    some are withheld, an entry says so.
    """

    def __init__(
        self,
        journal: Journal,
        rate: Callable[[], int] = int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._rate = rate
        self._clock = clock
        self._throttles: dict[RunId, tuple[TreePlace, Throttle]] = {}

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        """Send one line; `offset` is its place in the run's output file."""
        if not self._admits(place):
            return
        self._journal.offer(
            {
                "MESSAGE": text[:MAX_JOURNAL_LINE],
                "PRIORITY": 6,
                "SYSLOG_IDENTIFIER": place.agent,
                "FACTORY_ISSUE": place.issue,
                "FACTORY_AGENT": place.agent,
                "FACTORY_RUN": place.run,
                "FACTORY_OFFSET": offset,
            }
        )

    @property
    def is_counting(self) -> bool:
        """Say whether there are runs whose lines are counted."""
        return bool(self._throttles)

    def tell_withheld(self, *, last: bool = False) -> None:
        """Say of each run whose lines pass again how many did not; of all, if this is the `last`."""
        now = self._clock()
        for place, throttle in list(self._throttles.values()):
            self._say(place, throttle.give_up() if last else throttle.take_withheld(now))
            if throttle.is_untouched(now):
                del self._throttles[place.run]

    def _admits(self, place: TreePlace) -> bool:
        now = self._clock()
        if place.run not in self._throttles:
            rate = self._rate()
            if rate == 0:
                return True
            self._throttles[place.run] = (place, Throttle(rate, RATE_PERIOD_S, now))
            self._journal.wanted()
        _, throttle = self._throttles[place.run]
        self._say(place, throttle.take_withheld(now))
        return throttle.admits(now)

    def _say(self, place: TreePlace, withheld: int) -> None:
        if withheld:
            self._journal.send(
                {
                    "MESSAGE": f"lines withheld here: {withheld}, as journal_rate allows no more;"
                    f" factoryctl logs --run {place.run} {place.agent} has all of them",
                    "PRIORITY": 5,
                    "SYSLOG_IDENTIFIER": place.agent,
                    "FACTORY_ISSUE": place.issue,
                    "FACTORY_AGENT": place.agent,
                    "FACTORY_RUN": place.run,
                }
            )


class SilentSink:
    """Forwards nothing: the lines are in their files."""

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        """Drop the line."""

    @property
    def is_counting(self) -> bool:
        """Return False: nothing is counted."""
        return False

    def tell_withheld(self, *, last: bool = False) -> None:
        """Say nothing."""


async def keep_up(journal: Journal, sink: JournalSink | SilentSink) -> None:
    """Send what was kept once journald takes it, and say what is missing, until cancelled.

    Sleeps, without waking, while there is neither.
    """
    token = trio.lowlevel.current_trio_token()
    try:
        while True:
            wanted = trio.Event()
            journal.wanted = partial(token.run_sync_soon, wanted.set, idempotent=True)
            while sink.is_counting or not journal.is_even:
                await trio.sleep(_BEHIND_S if journal.is_behind else _UP_TO_DATE_S)
                sink.tell_withheld()
                journal.catch_up()
            await wanted.wait()
    finally:
        journal.wanted = lambda: None
        sink.tell_withheld(last=True)
        journal.catch_up()


class SwitchedSink:
    """Forwards to another sink, while that is wanted."""

    def __init__(self, sink: OutputSink, wanted: Callable[[], bool]) -> None:
        self._sink = sink
        self._wanted = wanted

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        """Pass the line on, or drop it."""
        if self._wanted():
            self._sink.line(place, offset, text)
