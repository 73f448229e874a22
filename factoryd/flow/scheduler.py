"""Decides what is worked on: follows the sources, dispatches what is ready, holds the scopes.

The nursery is the running set: an issue is in flight exactly as long as its scope's task is in it.
"""

import logging
from collections.abc import Awaitable, Callable

import msgspec
import trio

from factoryd.core.allowed import Named, look_up, must_be_retriable, must_be_under_way
from factoryd.core.errors import FactoryError, IllegalFact, LedgerUnavailable
from factoryd.core.events import (
    AnyFact,
    IssueClaimed,
    IssueEscalated,
    IssueLeftReady,
    IssueReopened,
)
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.model import Issue, IssueState
from factoryd.core.policy import Decision, Dispatch, Escalate, Reopen, Skip, decide, in_order
from factoryd.core.records import IssueRecord, RunRecord, same_issue
from factoryd.flow.ending import Endings
from factoryd.flow.frost import Settled
from factoryd.flow.issue_scope import IssueScope, run_to_its_end
from factoryd.flow.iterations import MOST_FAILURES, Iterations
from factoryd.flow.pulse import Pulse
from factoryd.flow.shop import Shop
from factoryd.flow.stopping import Stopping

logger = logging.getLogger(__name__)

SCOPE_RETRY_S = (1.0, 5.0, 30.0, 300.0)
"""Waits before an issue whose scope broke is led on; the last one repeats."""


TIDY_S = 5.0
"""How long whoever wants an ended issue back waits for its outcome to be written."""


class Scheduler:
    """Turns listings into running issues."""

    def __init__(self, shop: Shop, pulse: Pulse) -> None:
        self.followers = shop.sources.followers
        self.one_look = trio.Lock()
        """Held while issues are looked at: what that goes by is replaced in between."""
        self._shop = shop
        self._pulse = pulse
        self._scopes: dict[str, IssueScope] = {}
        self._keep = False
        self._shunned: dict[str, tuple[Issue, str]] = {}
        """Ready issues that something went wrong with, as they were then, and what."""
        self._reopening = set[str]()
        """Issues that people are bringing back just now, which are nobody else's until then."""
        self._scope_ended = trio.lowlevel.ParkingLot()
        self._wake = trio.Event()
        self._endings = Endings(shop, self._scopes, self.ready)
        shop.slots.freed = self.wake

    def wake(self) -> None:
        """Look at everything again soon."""
        self._wake.set()

    def forgive(self) -> None:
        """Look again soon, also at what something went wrong with."""
        self._shunned.clear()
        self.wake()

    async def run(self, *, drain_after: int | None = None) -> None:
        """Dispatch until cancelled; cancelling empties every tree before this returns.

        With `drain_after`, return once the sources were asked that many times (0: as often as it
        takes) and nothing is ready, running or cooling down any more. When too many of those times
        in a row no source answers, empty every tree and return at once.
        """
        iterations = None if drain_after is None else Iterations(self.followers, drain_after)
        unfinished = self._shop.sources.unfinished()
        begun = [one.issue.key for one in unfinished if one.state is IssueState.RUNNING]
        self._shop.slots.recount(len(begun))  # some may have been ended since the start
        async with trio.open_nursery() as scopes:
            for key in begun:
                self._open_scope(scopes, key, has_slot=True)
            async with trio.open_nursery() as following:
                following.start_soon(self._shop.slots.run)
                following.start_soon(self._shop.sources.run, self.wake)
                await self._dispatch_until_over(scopes, iterations)
                following.cancel_scope.cancel(reason="drained")
            if iterations is not None and iterations.hopeless:
                logger.error("stopping: %d iterations in a row failed", MOST_FAILURES)
            # What is left when drained waits for a source that the configuration lacks.
            scopes.cancel_scope.cancel(reason="too many iterations failed, or drained")

    async def empty_leftovers(self) -> None:
        """Empty every tree that is still recorded as live, for when no scope runs any more.

        Scopes leave none behind; this holds even if one broke.
        """
        async with trio.open_nursery() as nursery:
            for record in self._shop.sources.unfinished():
                for run in record.live_runs:
                    logger.error("%s: run %s was left running", record.issue.key, run.run)
                    nursery.start_soon(self._empty_leftover, run)

    async def _empty_leftover(self, run: RunRecord) -> None:
        with trio.CancelScope(shield=True):
            stopping = Stopping(self._shop.config.stop.grace)
            await self._shop.runner.empty_abandoned(run, self._shop.config, stopping)

    async def kill(self, keys: list[str], reason: str, grace_s: float | None) -> None:
        """End issues as cancelled; returns once that is recorded for all, before it is done.

        Raises `NoSuchTarget` for a key nobody knows and `FactoryError` for one that has ended and
        whose outcome is written back; then none is touched.
        """
        await self._endings.kill(keys, reason, grace_s)
        self.wake()

    async def release(self, key: str, reason: str) -> None:
        """End an issue as done, its work being done elsewhere; else as `kill`.

        Raises `FactoryError` also for one that waits and is out of scope: it is not ours to end.
        """
        await self._endings.release(key, reason)
        self.wake()

    async def retry(self, key: str, reason: str) -> None:
        """Have an ended or escalated issue begin anew, with all its attempts; its source shows it.

        Raises `NoSuchTarget` for a key nobody knows, `FactoryError` for an issue that waits or is
        under way or whose end is not written back, and `SourceFailed` when its source cannot.
        """
        folded = same_issue(key)
        await self._wait_tidy(key)
        record = must_be_retriable(self._look_up(key))
        if folded in self._reopening:
            raise FactoryError(f"{key} is being reopened already")
        # Its source first: should the daemon die in between, it has left ready and come back.
        self._reopening.add(folded)
        try:
            await self._shop.source(record.issue).reopen(record.issue)
            await self._shop.ledger.record(IssueReopened(issue=key, reason=reason))
        finally:
            self._reopening.discard(folded)
            self._shunned.pop(folded, None)
            self.wake()

    async def _wait_tidy(self, key: str) -> None:
        """Return once nothing is left to do for an ended issue; raise when that takes long."""
        record = self._record(key)
        if record is None or record.state not in TERMINAL:
            return
        with trio.move_on_after(TIDY_S):
            await trio.lowlevel.checkpoint()
            while same_issue(key) in self._scopes:
                await self._scope_ended.park()
        if same_issue(key) in self._scopes:
            why = self._shop.troubles.get(same_issue(key), "its outcome is not written back yet")
            raise FactoryError(f"{key} cannot begin anew yet: {why}: try again in a moment")

    async def freeze(self, key: str, reason: str) -> Settled:
        """Have an issue stand still with all its agents; see `Frost.freeze`.

        Raises `NoSuchTarget` for a key nobody knows and `FactoryError` when nothing of it is under
        way, or it is frozen already.
        """
        issue = must_be_under_way(self._look_up(key))
        return await self._shop.runner.frost.freeze(issue, reason)

    async def thaw(self, key: str) -> Settled:
        """Have a frozen issue go on; raises as `freeze` does, also when it is not frozen."""
        return await self._shop.runner.frost.thaw(must_be_under_way(self._look_up(key)))

    def keep_agents(self, *, keep: bool) -> None:
        """Say whether scopes that are cancelled leave their agents running, for the next daemon.

        An issue that is being ended is ended all the same.
        """
        self._keep = keep
        for scope in self._scopes.values():
            self._tell_whether_to_keep(scope)

    def _tell_whether_to_keep(self, scope: IssueScope) -> None:
        scope.stopping.keep = self._keep and scope.record.state is not IssueState.STOPPING

    def hurry(self) -> None:
        """Skip what is left of every grace."""
        for scope in self._scopes.values():
            scope.stopping.shorten(0)

    def ready(self) -> list[Issue]:
        """Return what the sources show as ready, in the order of dispatch, each key once."""
        issues: dict[str, Issue] = {}
        for follower in self.followers:
            for issue in follower.listing.issues:
                issues.setdefault(same_issue(issue.key), issue)
        return in_order(issues.values())

    def _free(self) -> list[Issue]:
        """Return what is ready and in no scope; a scope holds its issue until all is tidy."""
        held = self._scopes.keys() | self._reopening
        return [issue for issue in self.ready() if same_issue(issue.key) not in held]

    def shunned(self, issue: Issue) -> str | None:
        """Return what went wrong with a ready issue that has not changed since."""
        shunned = self._shunned.get(same_issue(issue.key))
        return shunned[1] if shunned is not None and shunned[0] == issue else None

    def decide(self, issue: Issue) -> Decision:
        """Return what would be done with a ready issue now, slots aside."""
        shunned = self.shunned(issue)
        if shunned is not None:
            return Skip(issue=issue, reason=shunned)
        record = self._shop.ledger.registry.issue(issue.key)
        return decide(issue, record, self._shop.config, self._shop.clock.now())

    def _record(self, key: str) -> IssueRecord | None:
        return self._shop.ledger.registry.issue(key)

    def _look_up(self, key: str) -> Named:
        return look_up(key, self._record(key), self.ready())

    async def _dispatch_until_over(
        self, scopes: trio.Nursery, iterations: Iterations | None
    ) -> None:
        while True:
            self._wake = trio.Event()
            async with self.one_look:
                with self._pulse.busy():
                    await self._dispatch(scopes)
            self._shop.sources.let_go()
            if iterations is not None and await self._is_over(iterations):
                return
            if not self._wake.is_set():
                await self._wake.wait()

    async def _is_over(self, iterations: Iterations) -> bool:
        iterations.note()
        return iterations.hopeless or (iterations.done and await self._is_drained())

    async def _is_drained(self) -> bool:
        if self._shop.ledger.trouble or self._is_working():
            return False
        for follower in self.followers:
            await follower.ask()
        await self._note_departures()  # or what is put back before the next start is not new
        left = [i for i in self._free() if isinstance(self.decide(i), Dispatch | Reopen | Escalate)]
        if left and self._shop.ledger.registry.paused is None:
            self.wake()
        return not left and not self._is_working()

    def _is_working(self) -> bool:
        return not self._scopes.keys() <= self._shop.stranded

    async def _dispatch(self, scopes: trio.Nursery) -> None:
        if self._shop.ledger.trouble is not None:
            return
        await self._note_departures()
        for follower in self.followers:
            await self._endings.close(follower.closed)
        for issue in self._free():
            await self._fence(issue, self._settle)
        await self._take_on(scopes)
        for record in self._shop.sources.unfinished():
            if same_issue(record.issue.key) not in self._scopes:
                self._open_scope(scopes, record.issue.key, has_slot=False)

    async def _fence(self, issue: Issue, act: Callable[[Issue], Awaitable[None]]) -> bool:
        """Do something about one issue and say whether that worked; it costs no other issue."""
        try:
            await act(issue)
        except LedgerUnavailable:
            raise
        except IllegalFact as error:
            logger.info("looking again, an issue changed hands: %s", error)
            self.wake()
        except Exception as error:
            logger.exception("%s: an error inside factoryd; left alone until it changes", issue.key)
            reason = f"an error inside factoryd: {error!r}"
            self._shunned[same_issue(issue.key)] = (issue, reason)
        else:
            return True
        return False

    async def _settle(self, issue: Issue) -> None:
        match self.decide(issue):
            case Reopen():
                await self._reopen(issue)
            case Escalate(reason=reason):
                work = msgspec.structs.replace(issue, body="")
                await self._shop.ledger.record(
                    IssueEscalated(issue=issue.key, work=work, reason=reason)
                )
            case _:
                pass

    async def _take_on(self, scopes: trio.Nursery) -> None:
        slots = self._shop.slots
        if self._shop.ledger.registry.paused is not None:
            return
        wanted = [one for i in self._free() if isinstance(one := self.decide(i), Dispatch)]
        taken = wanted[: slots.free]
        for _ in taken:
            slots.take_nowait()
        claimed = list[Dispatch]()
        try:
            claimed = await self._claim(taken)
        finally:
            for _ in range(len(taken) - len(claimed)):
                slots.give()
        for one in claimed:
            self._open_scope(scopes, one.issue.key, has_slot=True)

    async def _claim(self, wanted: list[Dispatch]) -> list[Dispatch]:
        """Claim issues, together if all can be, and return those that are claimed."""
        try:
            await self._shop.ledger.record(*[_claimed(one) for one in wanted])
        except LedgerUnavailable:
            raise
        except Exception:  # noqa: BLE001  one of them cannot be claimed: each is tried by itself
            return [one for one in wanted if await self._fence(one.issue, self._claim_one)]
        return wanted

    async def _claim_one(self, issue: Issue) -> None:
        decision = self.decide(issue)
        if not isinstance(decision, Dispatch):
            raise IllegalFact(f"{issue.key}: it is not to be dispatched any more")
        await self._shop.ledger.record(_claimed(decision))

    async def _reopen(self, issue: Issue) -> None:
        reason = "it left ready in its source and came back"
        await self._shop.ledger.record(IssueReopened(issue=issue.key, reason=reason))
        self.wake()

    async def _note_departures(self) -> None:
        listed = {same_issue(issue.key) for issue in self.ready()}
        for follower in self.followers:
            listed |= {same_issue(key) for key in follower.listing.copies}
        self._shunned = {key: one for key, one in self._shunned.items() if key in listed}
        complete = {follower.name for follower in self.followers if follower.complete}
        gone: list[AnyFact] = [
            IssueLeftReady(issue=record.issue.key)
            for key, record in self._shop.ledger.registry.issues.items()
            if record.issue.source in complete and not record.left_ready and key not in listed
        ]
        await self._shop.ledger.record(*gone)

    def _open_scope(self, scopes: trio.Nursery, key: str, *, has_slot: bool) -> None:
        scope = IssueScope(self._shop, key, has_slot=has_slot)
        self._tell_whether_to_keep(scope)
        self._scopes[same_issue(key)] = scope
        scopes.start_soon(self._lead, key, scope)

    async def _lead(self, key: str, scope: IssueScope) -> None:
        tries, troubles = 0, self._shop.troubles
        try:
            while (error := await run_to_its_end(key, scope)) is not None:
                troubles[same_issue(key)] = f"an error inside factoryd: {error!r}"
                with trio.move_on_after(SCOPE_RETRY_S[min(tries, len(SCOPE_RETRY_S) - 1)]):
                    await scope.wait_stop_asked()
                troubles.pop(same_issue(key), None)
                tries += 1
        finally:
            troubles.pop(same_issue(key), None)
            del self._scopes[same_issue(key)]
            self._scope_ended.unpark_all()
            self.wake()


def _claimed(one: Dispatch) -> IssueClaimed:
    return IssueClaimed(
        issue=one.issue.key,
        work=msgspec.structs.replace(one.issue, body=""),
        repo=one.repo,
        recipe=one.recipe,
    )
