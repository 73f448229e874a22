"""One issue, from its claim to its outcome written back: attempts in a loop, sleeps between them.

The scope is led by the state in the ledger: whatever the state is when it begins, it goes on from
there, so a daemon that starts anew continues where the last one ended.
"""

import logging
import random
from collections.abc import Awaitable, Callable
from typing import cast

import trio
from msgspec.structs import replace

from factoryd.core import labels
from factoryd.core.allowed import may_withdraw
from factoryd.core.config import SafetyConfig
from factoryd.core.errors import FactoryError, IllegalFact, LedgerUnavailable, WorkspaceFailed
from factoryd.core.events import (
    AnyFact,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    IssueCancelled,
    IssueDone,
    IssueParked,
    IssueStopping,
    OutcomeWithheld,
    OutcomeWritten,
)
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.model import Issue, IssueState, OutcomeNote
from factoryd.core.policy import NextStep, cooldown_s
from factoryd.core.records import IssueRecord, same_issue
from factoryd.core.triage import refuse_scope
from factoryd.flow.attempt import Attempt, Gone, Lost, StagesEnd
from factoryd.flow.shop import Shop
from factoryd.flow.slots import PATIENCE_S, Seat
from factoryd.flow.stopping import Stopping
from factoryd.ports import IssueSource

logger = logging.getLogger(__name__)

NOT_WRITTEN = "its outcome is not written back yet"
OPEN = SafetyConfig(require_label="", require_title_prefix="", require_team="")


class IssueScope:
    """One issue in flight. Nothing of it runs once `run` has returned or raised."""

    def __init__(self, shop: Shop, key: str, *, has_slot: bool) -> None:
        """Prepare for an issue the ledger knows; `has_slot`: one was taken for its attempt."""
        self._shop = shop
        self._key = key
        self._seat = Seat(shop.slots, taken=has_slot)
        self._working = trio.CancelScope()
        self._writing = trio.CancelScope()
        self._one_write = trio.Lock()
        self._stop_asked = trio.Event()
        self.stopping = Stopping(shop.config.stop.grace)

    @property
    def record(self) -> IssueRecord:
        """Return what the ledger knows of the issue now."""
        return self._shop.record(self._key)

    @property
    def _max_attempts(self) -> int:
        return self._shop.config.dispatch.max_attempts

    async def stop(self, stop: IssueStopping, grace_s: float | None) -> None:
        """End the issue as the fact says; returns once that is recorded, before it is done.

        One that ends by itself at the same moment has ended, once its outcome is written back.
        """
        await self.stop_unless_over(stop, grace_s)
        if self.record.state in TERMINAL:
            await self._withdraw(stop)

    async def stop_unless_over(self, stop: IssueStopping, grace_s: float | None) -> None:
        """Do as `stop`, but leave one that has ended as it is."""
        first_to_ask = await self._record_stopping(stop)
        if self.record.state in TERMINAL:
            return
        if grace_s is not None and first_to_ask:
            self.stopping.grace_s = grace_s
        elif grace_s is not None:
            self.stopping.shorten(grace_s)
        self._working.cancel(reason=stop.reason)
        self._stop_asked.set()

    async def _record_stopping(self, stop: IssueStopping) -> bool:
        """Record that the issue is to stop, and say so; not if it is, or has ended."""
        settled = TERMINAL | {IssueState.STOPPING}
        try:
            if self.record.state not in settled:
                await self._shop.ledger.record(stop)
                return True
        except IllegalFact:  # someone was first, or it ended at the same moment
            if self.record.state not in settled:
                raise
        return False

    async def _withdraw(self, stop: IssueStopping) -> None:
        """Have an issue end otherwise whose outcome cannot be written back.

        While nothing is wrong with writing it, that is given a moment: then it has ended. One that
        is cancelled already, and has no source any more, is not written back.
        """
        if not (may_withdraw(self.record, stop.outcome) or self._has_lost_source()):
            return
        with trio.move_on_after(PATIENCE_S):
            await trio.lowlevel.checkpoint()
            while not self._write_is_settled():
                await self._shop.ledger.wait_beyond(self._shop.ledger.registry.seq)
        self._writing.cancel(reason=stop.reason)
        async with self._one_write:
            if may_withdraw(self.record, stop.outcome):
                await self._shop.ledger.record(replace(stop, withdraws=True))
            elif self._has_lost_source():
                record, source = self.record, self.record.issue.source
                lost = f"the configuration no longer has the source {source!r}"
                await self._shop.ledger.record(
                    OutcomeWithheld(issue=self._key, outcome=record.state, reason=lost)
                )
        self._stop_asked.set()

    def _has_lost_source(self) -> bool:
        record = self.record
        unwritten = record.state in TERMINAL and not record.written
        return unwritten and self._shop.sources.of(record.issue) is None

    def _write_is_settled(self) -> bool:
        record = self.record
        failing = same_issue(self._key) in self._shop.troubles
        return failing or record.written or record.state not in TERMINAL

    async def wait_stop_asked(self) -> None:
        """Return once `stop` was called since this last returned."""
        await self._stop_asked.wait()
        self._stop_asked = trio.Event()

    async def run(self) -> None:
        """Lead the issue to its end and write the outcome back.

        Cancelled from outside, it empties its trees and leaves the issue as the next daemon is to
        find it.
        """
        labels.ISSUE.set(self._key)
        try:
            while not (self.record.state in TERMINAL and self.record.written):
                await self._step(self.record)
        finally:
            self._seat.give()
        await self._tidy(self.record)

    async def _step(self, record: IssueRecord) -> None:
        if record.state in TERMINAL:
            try:
                with self._writing:
                    async with self._one_write:
                        if self.record.state in TERMINAL and not self.record.written:
                            await self._write_back(self.record)
            finally:
                self._writing = trio.CancelScope()
        elif record.state is IssueState.STOPPING:
            await self._finish_stopping(record)
        elif not record.attempt_open and record.attempts_used >= self._max_attempts:
            await self._shop.ledger.record(
                IssueParked(issue=self._key, reason=_spent(record.attempts_used, record.reason))
            )
        else:
            try:
                with self._working:
                    await self._wait_for_turn(record)
                    await self._one_attempt()
            finally:
                self._working = trio.CancelScope()
        self._seat.give()

    async def _wait_for_turn(self, record: IssueRecord) -> None:
        if record.not_before is not None:
            await trio.sleep(max(0.0, record.not_before - self._shop.clock.now()))
        if not record.attempt_open:  # the agents of an open one are taken over, frozen or not
            await self._shop.wait_source(record.issue)
            await self._shop.runner.frost.wait_thawed(self._key)
            await self._shop.wait_resumed()
        await self._seat.take()

    async def _one_attempt(self) -> None:
        end = await self._fenced(Attempt(self._shop, self._key, self._seat, self.stopping).run)
        await self._empty_leftovers(self.record)
        record = self.record
        if record.state is IssueState.STOPPING:
            return  # it was asked to stop while an agent was being started
        try:
            await self._end_attempt(end, record)
        except IllegalFact:
            if self.record.state is not IssueState.STOPPING:
                raise
            logger.info("stopping was asked for while the attempt ended")

    async def _fenced(self, call: Callable[[], Awaitable[StagesEnd]]) -> StagesEnd:
        """Turn whatever goes wrong in one attempt into its failure; the rest goes on."""
        end: StagesEnd | None = None
        try:
            end = await call()
        except* Gone as errors:
            end = StagesEnd(step=NextStep.RELEASE, reason=str(first_error(errors)))
        except* Lost as errors:
            end = StagesEnd(step=NextStep.IGNORE, reason=str(first_error(errors)))
        except* FactoryError as errors:
            end = StagesEnd(step=NextStep.FAIL, reason=str(first_error(errors)))
        except* Exception as errors:
            logger.exception("an error inside factoryd; the attempt has failed")
            reason = f"an error inside factoryd: {first_error(errors)!r}"
            end = StagesEnd(step=NextStep.FAIL, reason=reason)
        assert end is not None
        return end

    async def _end_attempt(self, end: StagesEnd, record: IssueRecord) -> None:
        key, dispatch = self._key, self._shop.config.dispatch
        n = record.attempts_used + 1
        if end.step is NextStep.RELEASE:
            outcome = await self._read_end(record.issue)
            await self._shop.ledger.record(
                IssueStopping(issue=key, reason=end.reason or "gone", outcome=outcome)
            )
            return
        if end.step is NextStep.IGNORE:
            await self._shop.ledger.record(IssueParked(issue=key, reason=end.reason or "no route"))
            return
        begun = () if record.attempt_open else (AttemptStarted(issue=key, attempt=n),)
        ended = AttemptEnded(
            issue=key,
            attempt=n,
            result=_RESULTS.get(end.step, AttemptResult.FAILED),
            reason=end.reason,
        )
        if end.step is NextStep.FINISH:
            facts: tuple[AnyFact, ...] = (ended, IssueDone(issue=key))
        elif end.final:
            facts = (ended, IssueParked(issue=key, reason=end.reason or ""))
        elif n >= self._max_attempts and end.step is not NextStep.DEFER:
            facts = (ended, IssueParked(issue=key, reason=_spent(n, end.reason)))
        else:
            count = record.deferrals + 1 if end.step is NextStep.DEFER else n
            wait = cooldown_s(count, dispatch, random.random())  # noqa: S311  spreads, hides nothing
            facts = (replace(ended, not_before=self._shop.clock.now() + wait),)
        await self._shop.ledger.record(*begun, *facts)

    async def _read_end(self, issue: Issue) -> IssueState:
        """Return what an issue that may not be worked on any more ends as."""
        closed = await self._shop.ask(issue, lambda source: source.find_closed([issue]))
        outcomes = [one.outcome for one in closed if one.outcome is not None]
        return outcomes[0] if outcomes else IssueState.CANCELLED

    async def _finish_stopping(self, record: IssueRecord) -> None:
        await self._empty_leftovers(record)
        reason = record.reason or "asked to stop"
        over = _ENDS[record.ends_as](issue=self._key, reason=reason)
        if not record.attempt_open:
            await self._shop.ledger.record(over)
            return
        ended = AttemptEnded(
            issue=self._key, attempt=record.attempt, result=AttemptResult.CANCELLED, reason=reason
        )
        await self._shop.ledger.record(ended, over)

    async def _empty_leftovers(self, record: IssueRecord) -> None:
        async with trio.open_nursery() as nursery:
            for run in record.live_runs:
                nursery.start_soon(
                    self._shop.runner.empty_abandoned, run, self._shop.config, self.stopping
                )

    async def _write_back(self, record: IssueRecord) -> None:
        note = OutcomeNote(
            key=record.issue.key,
            state=record.state,
            reason=record.reason,
            attempts=record.attempts_used,
            rounds=record.round,
            ended_at=record.since,
        )

        issue, key = record.issue, self._key
        refused = await self._refused(issue)
        if refused is not None:
            withheld = OutcomeWithheld(issue=key, outcome=record.state, reason=refused)
            await self._shop.ledger.record(withheld)
            return
        if record.attempt == 0 and not record.left_ready:
            await self._shop.ask(issue, lambda source: _claim_if_there(source, issue), NOT_WRITTEN)
        await self._shop.ask(issue, lambda source: source.write_outcome(issue, note), NOT_WRITTEN)
        await self._shop.ledger.record(OutcomeWritten(issue=self._key, outcome=record.state))

    async def _refused(self, issue: Issue) -> str | None:
        """Return why the issue may no longer be touched in its source; one that is gone may."""
        safety = self._shop.config.safety
        if safety == OPEN:
            return None
        now = await self._shop.ask(issue, lambda source: source.read(issue), NOT_WRITTEN)
        return None if now is None else refuse_scope(now, safety)

    async def _tidy(self, record: IssueRecord) -> None:
        if record.state is IssueState.PARKED or not record.repo:
            return
        try:
            kept = await self._shop.workspaces.release(record.issue, record.repo)
        except WorkspaceFailed as error:
            kept = str(error)
        if kept is not None:
            logger.info("workspace kept: %s", kept)


_ENDS: dict[IssueState, type[IssueDone | IssueParked | IssueCancelled]] = {
    IssueState.DONE: IssueDone,
    IssueState.PARKED: IssueParked,
    IssueState.CANCELLED: IssueCancelled,
}
"""The fact that ends an issue which is being stopped, by what it is to end as."""

_RESULTS = {
    NextStep.FINISH: AttemptResult.SUCCEEDED,
    NextStep.DEFER: AttemptResult.DEFERRED,
}


def _spent(attempts: int, reason: str | None) -> str:
    return f"{attempts} of {attempts} attempts failed, the last because {reason}"


async def _claim_if_there(source: IssueSource, issue: Issue) -> None:
    """Take an issue out of what is ready that ended before that was done."""
    if await source.read(issue) is not None:
        await source.claim(issue)


def first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first error of a group that is not a group itself."""
    error = group.exceptions[0]
    if isinstance(error, ExceptionGroup):
        return first_error(cast("ExceptionGroup[Exception]", error))
    return error


async def run_to_its_end(key: str, scope: IssueScope) -> Exception | None:
    """Run a scope and return what broke it, if anything did.

    The fence around one issue: an error in it is reported and costs no other.
    """
    broken: Exception | None = None
    try:
        await scope.run()
    except* LedgerUnavailable:
        logger.warning("%s: left as the ledger knows it, as no more facts can be written", key)
    except* Exception as errors:
        logger.exception("%s: an error inside factoryd; the issue is led on in a moment", key)
        broken = first_error(errors)
    return broken
