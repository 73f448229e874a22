"""Ends issues for whoever asks: the wish is recorded, and the scope of the issue does the rest.

An issue ends once: the first wish decides as what, and later ones share that end.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import trio

from factoryd.core.allowed import look_up, may_withdraw, must_be_killable
from factoryd.core.errors import FactoryError, IllegalFact
from factoryd.core.events import IssueClaimed, IssueStopping
from factoryd.core.lifecycle import STOPPABLE
from factoryd.core.model import Closed, Issue, IssueState
from factoryd.core.records import same_issue
from factoryd.core.triage import refuse_scope
from factoryd.flow.issue_scope import IssueScope, first_error
from factoryd.flow.shop import Shop


class Endings:
    """Ends issues that wait, are in flight, or have an end that is not written back yet."""

    def __init__(
        self, shop: Shop, scopes: Mapping[str, IssueScope], ready: Callable[[], list[Issue]]
    ) -> None:
        """Prepare to end issues; `scopes` are those that are led now, by what `same_issue` says."""
        self._shop = shop
        self._scopes = scopes
        self._ready = ready

    async def kill(self, keys: Sequence[str], reason: str, grace_s: float | None) -> None:
        """End issues as cancelled; returns once that is recorded for all, before it is done.

        Raises `NoSuchTarget` for a key nobody knows and `FactoryError` for one that has ended and
        whose outcome is written back; then none is touched.
        """
        waiting = list(filter(None, map(self._check, keys)))
        await self._end([IssueStopping(issue=key, reason=reason) for key in keys], waiting, grace_s)

    async def release(self, key: str, reason: str) -> None:
        """End an issue as done, its work being done elsewhere; else as `kill`.

        Raises `FactoryError` also for one that waits and is out of scope: it is not ours to end.
        """
        waiting = self._check(key)
        refused = waiting and refuse_scope(waiting, self._shop.config.safety)
        if refused:
            raise FactoryError(f"{key} is left alone: {refused}")
        stop = IssueStopping(issue=key, reason=reason, outcome=IssueState.DONE)
        await self._end([stop], [waiting] if waiting else [], None)

    async def close(self, closed: Iterable[Closed]) -> None:
        """End issues that others have ended in their source; what has ended here stays as it is."""
        for one in closed:
            record = self._shop.ledger.registry.issue(one.key)
            if record is None or record.state not in STOPPABLE or one.outcome is None:
                continue
            gone = one.outcome is IssueState.CANCELLED
            reason = (
                "it is gone from its source" if gone else f"its source shows it as {one.outcome}"
            )
            stop = IssueStopping(issue=record.issue.key, reason=reason, outcome=one.outcome)
            scope = self._scopes.get(same_issue(one.key))
            if scope is None:
                await self._end_unled(stop)
            else:
                await scope.stop_unless_over(stop, None)

    def _check(self, key: str) -> Issue | None:
        record = self._shop.ledger.registry.issue(key)
        return must_be_killable(look_up(key, record, self._ready()))

    async def _end(
        self, stops: Sequence[IssueStopping], waiting: Sequence[Issue], grace_s: float | None
    ) -> None:
        wishes = {same_issue(stop.issue): stop for stop in stops}
        for issue in waiting:
            await self._take_and_end(issue, wishes[same_issue(issue.key)])
        try:
            async with trio.open_nursery() as nursery:
                for stop in wishes.values():
                    nursery.start_soon(self._end_one, stop, grace_s)
        except ExceptionGroup as group:  # who asked is told why, and one reason will do
            raise first_error(group) from group

    async def _end_one(self, stop: IssueStopping, grace_s: float | None) -> None:
        key = same_issue(stop.issue)
        if key not in self._scopes:
            await self._end_unled(stop)
        scope = self._scopes.get(key)  # one may have begun meanwhile
        if scope is not None:
            await scope.stop(stop, grace_s)

    async def _take_and_end(self, issue: Issue, stop: IssueStopping) -> None:
        work = msgspec.structs.replace(issue, body="")
        claimed = IssueClaimed(issue=issue.key, work=work, repo="", recipe="")
        try:
            await self._shop.ledger.record(claimed, stop)
        except IllegalFact:  # claimed, or ended by another, at the same moment
            if self._shop.ledger.registry.issue(issue.key) is None:
                raise

    async def _end_unled(self, stop: IssueStopping) -> None:
        try:
            if self._is_stoppable(stop):
                await self._shop.ledger.record(stop)
            elif may_withdraw(self._shop.record(stop.issue), stop.outcome):
                await self._shop.ledger.record(msgspec.structs.replace(stop, withdraws=True))
        except IllegalFact:  # ended by another at the same moment
            if self._is_stoppable(stop):
                raise

    def _is_stoppable(self, stop: IssueStopping) -> bool:
        return self._shop.record(stop.issue).state in STOPPABLE
