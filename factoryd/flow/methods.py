"""What each method of the control interface does."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial

import msgspec
import trio

from factoryd import __version__
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
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.flow.varlink import (
    PRODUCT,
    SERVICE_DESCRIPTION,
    VENDOR,
    describe_interface,
)
from factoryd.flow.views import Overview, fact_view, find_issue, killed_view
from factoryd.wire.messages import (
    INTERFACE,
    METHODS,
    SERVICE_INTERFACE,
    Call,
    EventsCall,
    EventsReply,
    KillCall,
    KilledView,
    KillReply,
    LineView,
    LogsCall,
    LogsReply,
    ShutdownCall,
    ShutdownReply,
    StatusCall,
    SubmitCall,
    SubmitReply,
)

Answers = AsyncGenerator[tuple[msgspec.Struct, bool], None]
"""Replies, each with whether more will follow."""

MAX_FACTS = 10_000
MAX_LINES = 10_000


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """What `InvalidParameter` carries."""

    parameter: str


class _Method(msgspec.Struct, frozen=True, kw_only=True):
    method: str


class _Interface(msgspec.Struct, frozen=True, kw_only=True):
    interface: str


class _Nothing(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str
    product: str
    version: str
    url: str
    interfaces: tuple[str, ...]


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    description: str


class WireError(Exception):
    """An error of the Varlink service interface, with its parameters."""

    def __init__(self, name: str, parameters: msgspec.Struct) -> None:
        super().__init__(name)
        self.name = f"{SERVICE_INTERFACE}.{name}"
        self.parameters = parameters


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


class Methods:
    """The control interface's methods, over the parts of a daemon."""

    def __init__(
        self,
        shop: Shop,
        scheduler: Scheduler,
        overview: Overview,
        shut_down: Callable[[str], None],
    ) -> None:
        self._ledger = shop.ledger
        self._sources = shop.sources
        self._runner = shop.runner
        self._desk = shop.desk
        self._scheduler = scheduler
        self._overview = overview
        self._shut_down = shut_down

    def answer(self, interface: str, name: str, call: Call) -> Answers:
        """Return the answers to a call; raises `WireError` or a `FactoryError` while iterated."""
        if interface == SERVICE_INTERFACE:
            return self._describe(name, call.parameters)
        if interface != INTERFACE:
            raise WireError("InterfaceNotFound", _Interface(interface=interface))
        if name not in METHODS:
            raise WireError("MethodNotFound", _Method(method=call.method))
        parameters = msgspec.json.decode(call.parameters, type=METHODS[name].call)
        return self._handle(name, parameters, more=call.more)

    def _handle(self, name: str, parameters: msgspec.Struct, *, more: bool) -> Answers:
        match parameters:
            case StatusCall():
                watch = name == "Watch"
                return self._watch(parameters, more=more) if watch else self._status(parameters)
            case SubmitCall():
                return self._submit(parameters)
            case KillCall():
                return self._kill(parameters, more=more)
            case LogsCall():
                return self._logs(parameters, more=more)
            case EventsCall():
                return self._events(parameters, more=more)
            case ShutdownCall():
                return self._shutdown(parameters)
            case _:
                return self._health()

    async def _describe(self, name: str, parameters: msgspec.Raw) -> Answers:
        if name == "GetInfo":
            yield (
                _Info(
                    vendor=VENDOR,
                    product=PRODUCT,
                    version=__version__,
                    url="",
                    interfaces=(SERVICE_INTERFACE, INTERFACE),
                ),
                False,
            )
            return
        if name != "GetInterfaceDescription":
            raise WireError("MethodNotFound", _Method(method=f"{SERVICE_INTERFACE}.{name}"))
        wanted = msgspec.json.decode(parameters, type=_Interface).interface
        texts = {SERVICE_INTERFACE: lambda: SERVICE_DESCRIPTION, INTERFACE: describe_interface}
        if wanted not in texts:
            raise WireError("InterfaceNotFound", _Interface(interface=wanted))
        yield _Description(description=texts[wanted]()), False

    async def _status(self, call: StatusCall) -> Answers:
        status = await self._overview.status(call.targets)
        if call.targets and not status.issues:
            raise NoSuchTarget(f"{', '.join(call.targets)}: no such issue or agent")
        yield status, False

    async def _watch(self, call: StatusCall, *, more: bool) -> Answers:
        _needs_more(more)
        while True:
            seq = self._ledger.registry.seq
            yield await self._overview.status(call.targets), True
            await self._ledger.wait_beyond(seq)
            await trio.sleep(0.1)

    async def _health(self) -> Answers:
        yield self._overview.health(), False

    async def _submit(self, call: SubmitCall) -> Answers:
        name = call.source or next(iter(self._sources))
        source = self._sources.get(name)
        if source is None:
            raise NoSuchTarget(f"{name}: no such source: there are {', '.join(self._sources)}")
        yield SubmitReply(key=await source.submit(call.name, call.text), source=name), False

    async def _shutdown(self, call: ShutdownCall) -> Answers:
        yield ShutdownReply(pid=self._overview.pid), False
        self._shut_down(call.reason or "asked to over the control socket")
        await trio.sleep_forever()

    # ------------------------------------------------------------------------------------ kill

    async def _kill(self, call: KillCall, *, more: bool) -> Answers:
        keys = self._keys_to_kill(call)
        since = self._ledger.registry.seq
        grace_s = 0.0 if call.now else call.grace_s
        if grace_s is not None and not 0 <= grace_s < float("inf"):
            raise BadUsage("grace_s: must be 0 or more")
        await self._scheduler.kill(keys, call.reason or "killed by a person", grace_s)
        if not call.wait:
            yield KillReply(agents=(), ended=()), False
            return
        left = {same_issue(key) for key in keys}
        agents: list[KilledView] = []
        ended: list[str] = []
        while left:
            await self._ledger.wait_beyond(since)
            for recorded in await self._ledger.read(since, MAX_FACTS, None):
                since = recorded.seq
                agents += self._killed(recorded, left)
            over = {key for key in left if self._is_over(key)}
            ended += sorted(over)
            left -= over
            if more and left and (agents or over):
                yield KillReply(agents=tuple(agents), ended=tuple(ended)), True
                agents, ended = [], []
        yield KillReply(agents=tuple(agents), ended=tuple(ended)), False

    def _keys_to_kill(self, call: KillCall) -> list[str]:
        if call.all:
            flying = self._ledger.registry.issues.values()
            return [one.issue.key for one in flying if one.state in IN_FLIGHT]
        if not call.targets:
            raise BadUsage("name an issue or an agent to kill, or say that all are meant")
        keys: dict[str, None] = {}
        for target in call.targets:
            record = find_issue(self._ledger.registry, target)
            keys[record.issue.key if record is not None else target] = None
        return list(keys)

    def _killed(self, recorded: Recorded, keys: set[str]) -> list[KilledView]:
        fact = recorded.fact
        if not isinstance(fact, RunEmptied | HandoffMade) or same_issue(fact.issue) not in keys:
            return []
        record = self._ledger.registry.issue(fact.issue)
        runs = record.runs.values() if record is not None else ()
        agent = next((run.agent for run in runs if run.run == fact.run), "")
        return [killed_view(agent, fact.run, fact.report)]

    def _is_over(self, key: str) -> bool:
        record = self._ledger.registry.issue(key)
        return record is None or record.state in TERMINAL

    # ----------------------------------------------------------------------------------- streams

    async def _events(self, call: EventsCall, *, more: bool) -> Answers:
        if call.follow:
            _needs_more(more)
        since = call.since
        while True:
            limit = max(1, min(call.limit, MAX_FACTS))
            facts = await self._ledger.read(since, limit, call.issue)
            if facts or not call.follow:
                views = tuple(fact_view(fact) for fact in facts)
                yield EventsReply(facts=views), call.follow
            if not call.follow:
                return
            since = facts[-1].seq if facts else max(since, self._ledger.registry.seq)
            await self._ledger.wait_beyond(since)

    async def _logs(self, call: LogsCall, *, more: bool) -> Answers:
        if call.follow:
            _needs_more(more)
        place = await self._find_run(call)
        lines = max(0, min(call.lines, MAX_LINES))
        read = await trio.to_thread.run_sync(self._desk.read_tail, place, lines)
        yield _lines(place, read), call.follow
        if not call.follow:
            return
        offset = read[-1][0] if read else 0
        async for later in self._follow(place, offset):
            yield _lines(place, later), True
        yield _lines(place, []), False

    async def _follow(self, place: TreePlace, offset: int) -> AsyncIterator[list[tuple[int, str]]]:
        while True:
            live = self._runner.live.get(place.run)
            ended = live is None or live.closed
            if live is not None:
                await live.wait_beyond(offset)
            read = await trio.to_thread.run_sync(
                partial(self._desk.read_from, place, offset, to_the_end=ended)
            )
            if read:
                offset = read[-1][0]
                yield read
            elif ended:
                return

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


def _needs_more(more: bool) -> None:  # noqa: FBT001  it is what the call says
    if not more:
        raise WireError("ExpectedMore", _Nothing())


def _lines(place: TreePlace, lines: list[tuple[int, str]]) -> LogsReply:
    views = tuple(LineView(offset=offset, text=text) for offset, text in lines)
    return LogsReply(agent=place.agent, run=place.run, lines=views)
