"""What the scopes of issues work with, and how they ask a source that may not answer."""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import trio

from factoryd.core.config import Config
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Issue
from factoryd.core.records import IssueRecord, same_issue
from factoryd.flow.agent_runner import AgentRunner
from factoryd.flow.ledger import Ledger
from factoryd.flow.settings import Settings
from factoryd.flow.slots import Slots
from factoryd.flow.sources import Sources
from factoryd.ports import Clock, Desk, IssueSource, Workspaces

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_AFTER_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Waits between tries at a source that does not answer; the last one repeats."""


class Shop(msgspec.Struct, kw_only=True):
    """What every issue scope works with."""

    settings: Settings
    ledger: Ledger
    runner: AgentRunner
    sources: Sources
    workspaces: Workspaces
    desk: Desk
    clock: Clock
    slots: Slots
    socket: str
    troubles: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """What issues wait for that may never come, by the form under which keys are compared."""
    stranded: set[str] = msgspec.field(default_factory=set[str])
    """Issues that wait for the configuration to have their source again, in the same form."""

    @property
    def config(self) -> Config:
        """Return the configuration in force now."""
        return self.settings.config

    def record(self, key: str) -> IssueRecord:
        """Return what the ledger knows of an issue that it knows."""
        record = self.ledger.registry.issue(key)
        assert record is not None
        return record

    def source(self, issue: Issue) -> IssueSource:
        """Return an issue's source; raise `SourceFailed` when the configuration lost it."""
        source = self.sources.of(issue)
        if source is None:
            raise SourceFailed(lost_source(issue))
        return source

    async def wait_source(self, issue: Issue, else_: str = "it waits") -> IssueSource:
        """Return an issue's source, once the configuration has it; see `ask`."""
        key = same_issue(issue.key)
        while (source := self.sources.of(issue)) is None:
            self.troubles[key] = f"{else_}: {lost_source(issue)}"
            self.stranded.add(key)
            try:
                await self.settings.wait_replaced()
            finally:
                self.stranded.discard(key)
                self.troubles.pop(key, None)
        return source

    async def wait_resumed(self) -> None:
        """Return once dispatching is not paused; at once when it is not."""
        while self.ledger.registry.paused is not None:
            await self.ledger.wait_beyond(self.ledger.registry.seq)

    async def ask(
        self,
        issue: Issue,
        call: Callable[[IssueSource], Awaitable[T]],
        else_: str = "its source does not answer",
    ) -> T:
        """Ask the issue's source, again and again with growing waits until it answers.

        Until then `else_` is the issue's trouble, with what the source said. A source that the
        configuration lost is not asked: it may come back with another one.
        """
        tries, key = 0, same_issue(issue.key)
        try:
            while True:
                source = await self.wait_source(issue, else_)
                try:
                    return await call(source)
                except SourceFailed as error:
                    wait = RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S) - 1)]
                    self.troubles[key] = f"{else_}: {error}"
                    logger.warning("%s, again in %g s: %s", else_, wait, error)
                    tries += 1
                    await trio.sleep(wait)
        finally:
            self.troubles.pop(key, None)


def lost_source(issue: Issue) -> str:
    """Return what is told of an issue whose source the configuration no longer has."""
    return (
        f"the configuration no longer has the source {issue.source!r}: add it and run "
        f"`factoryctl reload`, or give the issue up with `factoryctl kill {issue.key}`"
    )
