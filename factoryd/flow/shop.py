"""What the scopes of issues work with, and how they ask a source that may not answer."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
import trio

from factoryd.core.config import Config
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Issue
from factoryd.core.records import IssueRecord, same_issue
from factoryd.flow.agent_runner import AgentRunner
from factoryd.flow.ledger import Ledger
from factoryd.flow.slots import Slots
from factoryd.ports import Clock, Desk, IssueSource, Workspaces

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_AFTER_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Waits between tries at a source that does not answer; the last one repeats."""


class Shop(msgspec.Struct, kw_only=True):
    """What every issue scope works with. `config` is replaced when it is loaded anew."""

    config: Config
    ledger: Ledger
    runner: AgentRunner
    sources: Mapping[str, IssueSource]
    workspaces: Workspaces
    desk: Desk
    clock: Clock
    slots: Slots
    socket: str
    troubles: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """What issues wait for that may never come, by the form under which keys are compared."""

    def record(self, key: str) -> IssueRecord:
        """Return what the ledger knows of an issue that it knows."""
        record = self.ledger.registry.issue(key)
        assert record is not None
        return record

    def source(self, name: str) -> IssueSource:
        """Return a source by name; raise `SourceFailed` when the configuration lost it."""
        source = self.sources.get(name)
        if source is None:
            raise SourceFailed(f"the configuration no longer has the source {name!r}")
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

        Until then `else_` is the issue's trouble, with what the source said.
        """
        tries, key = 0, same_issue(issue.key)
        try:
            while True:
                try:
                    return await call(self.source(issue.source))
                except SourceFailed as error:
                    wait = RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S) - 1)]
                    self.troubles[key] = f"{else_}: {error}"
                    logger.warning("%s, again in %g s: %s", else_, wait, error)
                    tries += 1
                    await trio.sleep(wait)
        finally:
            self.troubles.pop(key, None)
