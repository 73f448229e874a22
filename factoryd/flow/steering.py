"""What the methods that act on issues and on the daemon itself do."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Protocol

import trio

from factoryd.core.allowed import is_unfinished
from factoryd.core.errors import BadUsage, FactoryError, IllegalFact, LedgerUnavailable
from factoryd.core.events import (
    AnyFact,
    FactoryPaused,
    FactoryResumed,
    HandoffMade,
    Recorded,
    RunEmptied,
)
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.model import IssueState
from factoryd.core.records import same_issue
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.flow.varlink import Say
from factoryd.flow.views import Overview, find_issue, killed_view
from factoryd.wire.answers import (
    FrostReply,
    KilledView,
    KillReply,
    PauseReply,
    RetryReply,
    ShutdownReply,
)
from factoryd.wire.messages import (
    FreezeCall,
    KillCall,
    PauseCall,
    ReleaseCall,
    ResumeCall,
    RetryCall,
    ShutdownCall,
    ThawCall,
)

MAX_REASON = 1000
"""Characters kept of why somebody wants something."""

_PAGE = 10_000
"""Facts read at once."""


class ShutDown(Protocol):
    """Stops the daemon. See `Daemon.stop`."""

    def __call__(self, reason: str, *, keep_agents: bool) -> None:
        """Begin to stop; raise `FactoryError` when it is too late to keep the agents."""
        ...


class Steering:
    """The methods that change what happens."""

    def __init__(
        self, shop: Shop, scheduler: Scheduler, overview: Overview, shut_down: ShutDown
    ) -> None:
        self._ledger = shop.ledger
        self._scheduler = scheduler
        self._overview = overview
        self._shut_down = shut_down

    async def pause_or_resume(self, call: PauseCall | ResumeCall) -> PauseReply:
        """Have nothing new dispatched, or go on with it; asked for what is so, change nothing."""
        self._check_writing()
        fact: AnyFact = FactoryResumed()
        if isinstance(call, PauseCall):
            fact = FactoryPaused(reason=_reason(call.reason, "paused by a person"))
        try:
            await self._ledger.record(fact)
            changed = True
        except IllegalFact:
            changed = False
        self._scheduler.wake()
        paused = self._ledger.registry.paused
        return PauseReply(paused=paused is not None, reason=paused, changed=changed)

    async def retry(self, call: RetryCall) -> RetryReply:
        """Have an ended issue begin anew; see `Scheduler.retry`."""
        self._check_writing()
        key = self._key_of(call.target)
        await self._scheduler.retry(key, _reason(call.reason, "retried by a person"))
        return RetryReply(issue=key)

    async def freeze_or_thaw(self, call: FreezeCall | ThawCall) -> FrostReply:
        """Have an issue stand still, or go on, and tell how many of its runs obey."""
        self._check_writing()
        key = self._key_of(call.target)
        if isinstance(call, FreezeCall):
            settled = await self._scheduler.freeze(key, _reason(call.reason, "frozen by a person"))
        else:
            settled = await self._scheduler.thaw(key)
        return FrostReply(issue=key, runs=settled.done, late=settled.late)

    def _check_writing(self) -> None:
        if self._ledger.trouble is not None:
            raise LedgerUnavailable(
                f"{self._ledger.trouble}; until then only a shutdown ends agents"
            )

    async def shutdown(self, call: ShutdownCall, say: Say) -> None:
        """Begin to stop the daemon; the caller hears of its end by the connection's."""
        reason = _reason(call.reason, "asked to over the control socket")
        self._shut_down(reason, keep_agents=call.keep_agents)
        await say(ShutdownReply(pid=self._overview.pid))
        await trio.sleep_forever()

    async def kill(self, call: KillCall, say: Say, *, more: bool) -> None:
        """End issues and tell what that took, as it happens if the caller wants `more`."""
        keys = self._keys_to_kill(call)
        since = self._ledger.registry.seq
        grace_s = 0.0 if call.now else call.grace_s
        if grace_s is not None and not 0 <= grace_s < float("inf"):
            raise BadUsage("grace_s: must be 0 or more")
        self._check_writing()
        reason = _reason(call.reason, "killed by a person")
        await self._scheduler.kill(list(keys.values()), reason, grace_s)
        if not call.wait:
            await say(KillReply(agents=(), ended=()))
            return
        await self._tell_ends(keys, since, say, more=more)

    async def release(self, call: ReleaseCall, say: Say, *, more: bool) -> None:
        """End an issue as done and tell what that took, as `kill` does."""
        self._check_writing()
        key, since = self._key_of(call.target), self._ledger.registry.seq

        def check() -> None:
            record = self._ledger.registry.issue(key)
            if record is not None and record.state is not IssueState.DONE:
                raise FactoryError(f"{key} has ended as {record.state}: {record.reason}")

        await self._scheduler.release(key, _reason(call.reason, "released by a person"))
        await self._tell_ends({same_issue(key): key}, since, say, more=more, check=check)

    async def _tell_ends(
        self,
        keys: Mapping[str, str],
        since: int,
        say: Say,
        *,
        more: bool,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell what ending issues takes until all are over; `check` may refuse what came of it."""
        left = dict(keys)
        agents: list[KilledView] = []
        ended: list[str] = []
        while left:
            looked = self._ledger.registry.seq  # what is read below may be newer than this look
            over = [folded for folded in left if self._is_over(folded)]
            if over or more:
                facts = await self._read_all(since)
                since = facts[-1].seq if facts else since
                agents += _killed(facts, left)
                ended += sorted(left.pop(folded) for folded in over)
            if more and left and (agents or over):
                await say(KillReply(agents=tuple(agents), ended=tuple(ended)), continues=True)
                agents, ended = [], []
            if left:
                await self._ledger.wait_beyond(looked)
        check()
        await say(KillReply(agents=tuple(agents), ended=tuple(ended)))

    async def _read_all(self, since: int) -> list[Recorded]:
        facts = page = await self._ledger.read(since, _PAGE, None)
        while len(page) == _PAGE:
            page = await self._ledger.read(page[-1].seq, _PAGE, None)
            facts = facts + page
        return facts

    def _keys_to_kill(self, call: KillCall) -> dict[str, str]:
        """Return what is to end, each issue once, by the form under which keys are compared."""
        if call.all:
            known = self._ledger.registry.issues.values()
            keys = [one.issue.key for one in known if is_unfinished(one)]
        else:
            if not call.targets:
                raise BadUsage("name an issue or an agent to kill, or say that all are meant")
            keys = [self._key_of(target) for target in call.targets]
        return {same_issue(key): key for key in keys}

    def _key_of(self, target: str) -> str:
        """Return a target's issue key as the ledger or its source spells it, else as given."""
        record = find_issue(self._ledger.registry, target)
        if record is not None:
            return record.issue.key
        ready = {same_issue(issue.key): issue.key for issue in self._scheduler.ready()}
        return ready.get(same_issue(target), target)

    def _is_over(self, key: str) -> bool:
        record = self._ledger.registry.issue(key)
        return record is None or record.state in TERMINAL


def _reason(given: str | None, else_: str) -> str:
    return " ".join((given or "")[:MAX_REASON].split()) or else_


def _killed(facts: Sequence[Recorded], keys: Container[str]) -> Iterator[KilledView]:
    for fact in (recorded.fact for recorded in facts):
        if isinstance(fact, RunEmptied | HandoffMade) and same_issue(fact.issue) in keys:
            agent = fact.run.rpartition("-")[0]  # a run is named after its agent
            yield killed_view(agent, fact.run, fact.report)
