"""What each method of the control interface does."""

from collections.abc import Container, Iterator, Sequence
from functools import partial
from typing import Protocol

import msgspec
import trio

from factoryd.core.errors import (
    BadUsage,
    FactoryError,
    LedgerUnavailable,
    NoSuchTarget,
    SourceFailed,
)
from factoryd.core.events import HandoffMade, Recorded, RunEmptied
from factoryd.core.lifecycle import IN_FLIGHT, TERMINAL
from factoryd.core.model import RunId, TreePlace
from factoryd.core.records import same_issue
from factoryd.flow.recovery import Reaper
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.flow.varlink import (
    Interface,
    Method,
    Say,
    WireError,
    describe,
    read_parameters,
)
from factoryd.flow.views import Overview, fact_view, find_issue, killed_view
from factoryd.wire.answers import (
    EventsReply,
    FrostReply,
    KilledView,
    KillReply,
    LineView,
    LogsReply,
    ShutdownReply,
    StatusReply,
    SubmitReply,
)
from factoryd.wire.messages import (
    INTERFACE,
    METHODS,
    SERVICE_INTERFACE,
    Call,
    EventsCall,
    FreezeCall,
    KillCall,
    LogsCall,
    Nothing,
    ReapCall,
    ShutdownCall,
    StatusCall,
    SubmitCall,
    ThawCall,
)

MAX_FACTS = 10_000
MAX_LINES = 10_000
MAX_REASON = 1000
"""Characters kept of why somebody wants something stopped."""

LOOK_EVERY_S = 1.0
"""How often a watched picture is drawn anew when no fact says that it changed."""

_MAX_SEQ = (1 << 63) - 1


def error_name(error: FactoryError) -> str:
    """Return the full name under which an error goes over the wire."""
    match error:
        case NoSuchTarget():
            name = "NoSuchTarget"
        case BadUsage():
            name = "BadUsage"
        case LedgerUnavailable() | SourceFailed():
            name = "Unavailable"
        case _:
            name = "Refused"
    return f"{INTERFACE}.{name}"


class ShutDown(Protocol):
    """Stops the daemon. See `Daemon.stop`."""

    def __call__(self, reason: str, *, keep_agents: bool) -> None:
        """Begin to stop; raise `FactoryError` when it is too late to keep the agents."""
        ...


class Methods:
    """The control interface's methods, over the parts of a daemon."""

    def __init__(
        self,
        shop: Shop,
        scheduler: Scheduler,
        overview: Overview,
        shut_down: ShutDown,
        reaper: Reaper,
    ) -> None:
        self._ledger = shop.ledger
        self._sources = shop.sources
        self._runner = shop.runner
        self._desk = shop.desk
        self._scheduler = scheduler
        self._overview = overview
        self._shut_down = shut_down
        self._reaper = reaper

    async def answer(self, interface: str, name: str, call: Call, say: Say) -> None:
        """Answer a call, once or more; raises `WireError` or a `FactoryError` for a refusal."""
        if interface == SERVICE_INTERFACE:
            await say(describe(call.method, call.parameters))
            return
        if interface != INTERFACE:
            raise WireError("InterfaceNotFound", Interface(interface=interface))
        if name not in METHODS:
            raise WireError("MethodNotFound", Method(method=call.method))
        parameters = read_parameters(call.parameters, METHODS[name].call)
        if getattr(parameters, "follow", name == "Watch") and not call.more:
            raise WireError("ExpectedMore", Nothing())
        if name == "Watch" and isinstance(parameters, StatusCall):
            await self._watch(parameters, say)
        else:
            await self._dispatch(parameters, say, more=call.more)

    async def _dispatch(self, parameters: msgspec.Struct, say: Say, *, more: bool) -> None:
        match parameters:
            case StatusCall():
                await self._status(parameters, say)
            case LogsCall():
                await self._logs(parameters, say)
            case EventsCall():
                await self._events(parameters, say)
            case KillCall():
                await self._kill(parameters, say, more=more)
            case ShutdownCall():
                await self._shutdown(parameters, say)
            case _:
                await say(await self._answer_once(parameters))

    async def _answer_once(self, parameters: msgspec.Struct) -> msgspec.Struct:
        match parameters:
            case SubmitCall():
                return await self._submit(parameters)
            case FreezeCall() | ThawCall():
                return await self._freeze_or_thaw(parameters)
            case ReapCall():
                return await self._reaper.reap(dry_run=parameters.dry_run)
            case _:
                return self._overview.health()

    async def _status(self, call: StatusCall, say: Say) -> None:
        status = await self._overview.status(call.targets)
        known = {same_issue(issue.key) for issue in status.issues}
        known |= {agent.name for issue in status.issues for agent in issue.agents}
        unknown = [target for target in call.targets if same_issue(target) not in known]
        if unknown:
            raise NoSuchTarget(f"{', '.join(unknown)}: no such issue or agent")
        await say(status)

    async def _watch(self, call: StatusCall, say: Say) -> None:
        shown: StatusReply | None = None
        while True:
            seq = self._ledger.registry.seq
            status = await self._overview.status(call.targets)
            if shown is None or _at_rest(status) != _at_rest(shown):
                shown = status
                await say(status, continues=True)
            with trio.move_on_after(LOOK_EVERY_S):
                await self._ledger.wait_beyond(seq)
            await trio.sleep(0.1)

    async def _submit(self, call: SubmitCall) -> SubmitReply:
        name = call.source or next(iter(self._sources))
        source = self._sources.get(name)
        if source is None:
            raise NoSuchTarget(f"{name}: no such source: there are {', '.join(self._sources)}")
        return SubmitReply(key=await source.submit(call.name, call.text), source=name)

    async def _freeze_or_thaw(self, call: FreezeCall | ThawCall) -> FrostReply:
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

    async def _shutdown(self, call: ShutdownCall, say: Say) -> None:
        reason = _reason(call.reason, "asked to over the control socket")
        self._shut_down(reason, keep_agents=call.keep_agents)
        await say(ShutdownReply(pid=self._overview.pid))
        await trio.sleep_forever()

    # ------------------------------------------------------------------------------------ kill

    async def _kill(self, call: KillCall, say: Say, *, more: bool) -> None:
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
        left = dict(keys)
        looked = since
        agents: list[KilledView] = []
        ended: list[str] = []
        while left:
            await self._ledger.wait_beyond(looked)
            looked = self._ledger.registry.seq  # what is read below may be newer than this look
            over = [folded for folded in left if self._is_over(folded)]
            if not over and not more:
                continue
            facts = await self._read_all(since)
            since = facts[-1].seq if facts else since
            agents += _killed(facts, left)
            ended += sorted(left.pop(folded) for folded in over)
            if more and left and (agents or over):
                await say(KillReply(agents=tuple(agents), ended=tuple(ended)), continues=True)
                agents, ended = [], []
        await say(KillReply(agents=tuple(agents), ended=tuple(ended)))

    async def _read_all(self, since: int) -> list[Recorded]:
        facts = page = await self._ledger.read(since, MAX_FACTS, None)
        while len(page) == MAX_FACTS:
            page = await self._ledger.read(page[-1].seq, MAX_FACTS, None)
            facts = facts + page
        return facts

    def _keys_to_kill(self, call: KillCall) -> dict[str, str]:
        """Return what is to end, each issue once, by the form under which keys are compared."""
        if call.all:
            flying = self._ledger.registry.issues.values()
            keys = [one.issue.key for one in flying if one.state in IN_FLIGHT]
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

    # ----------------------------------------------------------------------------------- streams

    async def _events(self, call: EventsCall, say: Say) -> None:
        since = max(0, min(call.since, _MAX_SEQ))
        limit = max(1, min(call.limit, MAX_FACTS))
        while True:
            seen = self._ledger.registry.seq
            facts = await self._ledger.read(since, limit, call.issue)
            if facts or not call.follow:
                views = tuple(fact_view(fact) for fact in facts)
                await say(EventsReply(facts=views), continues=call.follow)
            if not call.follow:
                return
            since = facts[-1].seq if facts else max(since, seen)
            await self._ledger.wait_beyond(since)

    async def _logs(self, call: LogsCall, say: Say) -> None:
        place = await self._find_run(call)
        lines = max(0, min(call.lines, MAX_LINES))
        read = await trio.to_thread.run_sync(self._desk.read_tail, place, max(1, lines))
        await say(_lines(place, read[-lines:] if lines else []), continues=call.follow)
        if call.follow:
            await self._follow(place, read[-1][0] if read else 0, say)
            await say(_lines(place, []))

    async def _follow(self, place: TreePlace, offset: int, say: Say) -> None:
        """Give what a run writes from `offset` on, until it has ended and all is read."""
        while True:
            live = self._runner.live.get(place.run)
            ended = live is None or live.closed
            passed_on = live.offset if live is not None else 0
            read = await trio.to_thread.run_sync(
                partial(self._desk.read_from, place, offset, to_the_end=ended)
            )
            if read:
                offset = read[-1][0]
                await say(_lines(place, read), continues=True)
            elif ended or live is None:
                return
            else:
                await live.wait_beyond(passed_on)

    async def _find_run(self, call: LogsCall) -> TreePlace:
        record = find_issue(self._ledger.registry, call.target)
        if record is None:
            raise NoSuchTarget(f"{call.target}: no such issue or agent")
        if call.run is not None:
            find = self._desk.find_run
            place = await trio.to_thread.run_sync(find, record.issue.key, RunId(call.run))
            if place is None:
                raise NoSuchTarget(f"{call.run}: {record.issue.key} has no such run")
            return place
        run = record.runs.get(call.target.lower())
        if run is None and len(record.runs) == 1:
            (run,) = record.runs.values()
        if run is None and not record.runs:
            raise FactoryError(f"{record.issue.key}: no agent of it has run yet")
        if run is None:
            raise BadUsage(
                f"{record.issue.key} has several agents: name one of {', '.join(record.runs)}"
            )
        return run.place


def _at_rest(status: StatusReply) -> StatusReply:
    """Return a picture without what changes while nothing happens."""
    daemon = msgspec.structs.replace(status.daemon, heartbeat_age_s=None)
    return msgspec.structs.replace(status, daemon=daemon)


def _reason(given: str | None, else_: str) -> str:
    return " ".join((given or "")[:MAX_REASON].split()) or else_


def _killed(facts: Sequence[Recorded], keys: Container[str]) -> Iterator[KilledView]:
    for fact in (recorded.fact for recorded in facts):
        if isinstance(fact, RunEmptied | HandoffMade) and same_issue(fact.issue) in keys:
            agent = fact.run.rpartition("-")[0]  # a run is named after its agent
            yield killed_view(agent, fact.run, fact.report)


def _lines(place: TreePlace, lines: list[tuple[int, str]]) -> LogsReply:
    views = tuple(LineView(offset=offset, text=text) for offset, text in lines)
    return LogsReply(agent=place.agent, run=place.run, lines=views)
