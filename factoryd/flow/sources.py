"""The sources of issues: those of the configuration, and those that left it with issues claimed."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

import trio

from factoryd.core.allowed import is_unfinished
from factoryd.core.config import SourceConfig
from factoryd.core.lifecycle import STOPPABLE
from factoryd.core.model import Issue
from factoryd.core.records import IssueRecord, same_issue
from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulse
from factoryd.flow.settings import Settings
from factoryd.flow.source_follower import SourceFollower
from factoryd.ports import IssueSource

logger = logging.getLogger(__name__)

MAX_BUSY_S = 30.0
"""How long a source may be at one listing before it counts as stuck."""

MakeSource = Callable[[SourceConfig], Awaitable[IssueSource]]


class PulseBook(Protocol):
    """Where parts of the daemon that must make progress are listed. See `Pulses`."""

    def declare(self, name: str, max_silence_s: float) -> Pulse:
        """Add a part."""
        ...

    def forget(self, pulse: Pulse) -> None:
        """Leave a part out from now on."""
        ...


class Leaving:
    """A source that is only written back to: for the issues that it had when it left."""

    def __init__(self, source: IssueSource, keys: Iterable[str]) -> None:
        self.source = source
        self.name = source.name
        self.kind = source.kind
        self.keys = set(keys)


class Sources:
    """Follows sources, each in a task of its own, and finds the one that an issue is of.

    Two sources have one name only if one of them is leaving.
    """

    def __init__(self, settings: Settings, ledger: Ledger, pulses: PulseBook) -> None:
        self.followers: list[SourceFollower] = []
        """Those of the configuration, in its order."""
        self.leaving: list[Leaving] = []
        self._settings = settings
        self._ledger = ledger
        self._pulses = pulses
        self._unfollowed: list[SourceFollower] = []
        self._added = trio.Event()

    def of(self, issue: Issue) -> IssueSource | None:
        """Return the source of an issue; None when the configuration no longer has it."""
        key = same_issue(issue.key)
        for one in self.leaving:
            if one.name == issue.source and key in one.keys:
                return one.source
        return self.named(issue.source)

    def named(self, name: str) -> IssueSource | None:
        """Return the source of this name that the configuration has."""
        return next((one.source for one in self.followers if one.name == name), None)

    @property
    def names(self) -> list[str]:
        """Return what the sources of the configuration are called, in its order."""
        return [follower.name for follower in self.followers]

    def add(self, source: IssueSource) -> None:
        """Follow a source from now on, after all others."""
        pulse = self._pulses.declare(f"source {source.name}", MAX_BUSY_S)
        claimed = partial(self._claimed_from, source.name)
        follower = SourceFollower(source, self._settings, pulse, claimed)
        self.followers.append(follower)
        self._unfollowed.append(follower)
        self._added.set()

    def replace(self, gone: Sequence[str], new: Sequence[IssueSource], order: list[str]) -> None:
        """Follow other sources from now on, and look at all others anew.

        One that is gone is not asked for issues any more; what was claimed from it runs on and is
        written back to it.
        """
        for follower in [one for one in self.followers if one.name in gone]:
            self.followers.remove(follower)
            follower.stop()
            self._pulses.forget(follower.pulse)
            keys = [one.issue.key for one in self.unfinished() if self._is_from(one, follower)]
            self.leaving.append(Leaving(follower.source, map(same_issue, keys)))
        for follower in self.followers:
            follower.look_again()
        for source in new:
            self.add(source)
        self.followers.sort(key=lambda one: order.index(one.name))
        self.let_go()

    def let_go(self) -> None:
        """Drop the leaving sources for which nothing is left to do."""
        if not self.leaving:
            return
        unfinished = {same_issue(one.issue.key) for one in self.unfinished()}
        for one in self.leaving:
            one.keys &= unfinished
            if not one.keys:
                logger.info("source %s is gone: nothing of it is left", one.name)
        self.leaving = [one for one in self.leaving if one.keys]

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep all listings up to date until cancelled, calling `changed` after each look."""
        async with trio.open_nursery() as following:
            while True:
                while self._unfollowed:
                    following.start_soon(self._unfollowed.pop().run, changed)
                self._added = trio.Event()
                await self._added.wait()

    def _claimed_from(self, name: str) -> list[Issue]:
        """Return the issues of a source that end when it says so."""
        return [
            one.issue
            for one in self.unfinished()
            if one.state in STOPPABLE and self.of(one.issue) is self.named(name)
        ]

    def _is_from(self, record: IssueRecord, follower: SourceFollower) -> bool:
        return self.of(record.issue) is None and record.issue.source == follower.name

    def unfinished(self) -> list[IssueRecord]:
        """Return the issues that are claimed, or whose outcome is not written back yet."""
        records = self._ledger.registry.issues.values()
        return [record for record in records if is_unfinished(record)]
