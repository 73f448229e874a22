"""What the scopes of issues work with, and how they ask a source that may not answer."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
import trio

from factoryd.core.config import Config
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Issue
from factoryd.core.records import IssueRecord
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

    async def ask(self, issue: Issue, call: Callable[[IssueSource], Awaitable[T]]) -> T:
        """Ask the issue's source, again and again with growing waits until it answers."""
        tries = 0
        while True:
            try:
                return await call(self.source(issue.source))
            except SourceFailed as error:
                wait = RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S) - 1)]
                logger.warning("the source does not answer, again in %g s: %s", wait, error)
                tries += 1
                await trio.sleep(wait)
