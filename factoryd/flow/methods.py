"""Which part of the daemon answers which method of the control interface."""

import msgspec

from factoryd.core.errors import (
    BadUsage,
    FactoryError,
    LedgerUnavailable,
    NoSuchTarget,
    SourceFailed,
)
from factoryd.flow.looking import Looking
from factoryd.flow.recovery import Reaper
from factoryd.flow.reloading import Reloader
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.flow.steering import ShutDown, Steering
from factoryd.flow.varlink import (
    Interface,
    Method,
    Say,
    WireError,
    describe,
    read_parameters,
)
from factoryd.flow.views import Overview
from factoryd.wire.answers import SubmitReply
from factoryd.wire.messages import (
    INTERFACE,
    METHODS,
    SERVICE_INTERFACE,
    Call,
    EventsCall,
    ExplainCall,
    FreezeCall,
    HistoryCall,
    KillCall,
    LogsCall,
    Nothing,
    PauseCall,
    ReapCall,
    ReleaseCall,
    ReloadCall,
    ResumeCall,
    RetryCall,
    ShutdownCall,
    StatusCall,
    SubmitCall,
    ThawCall,
)


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
        shut_down: ShutDown,
        reaper: Reaper,
        reloader: Reloader,
    ) -> None:
        self._sources = shop.sources
        self._overview = overview
        self._reaper = reaper
        self._reloader = reloader
        self._looking = Looking(shop, scheduler, overview)
        self._steering = Steering(shop, scheduler, overview, shut_down)

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
            await self._looking.watch(parameters, say)
        else:
            await self._dispatch(parameters, say, more=call.more)

    async def _dispatch(self, parameters: msgspec.Struct, say: Say, *, more: bool) -> None:
        match parameters:
            case StatusCall():
                await self._looking.status(parameters, say)
            case LogsCall():
                await self._looking.logs(parameters, say)
            case EventsCall():
                await self._looking.events(parameters, say)
            case KillCall():
                await self._steering.kill(parameters, say, more=more)
            case ReleaseCall():
                await self._steering.release(parameters, say, more=more)
            case ShutdownCall():
                await self._steering.shutdown(parameters, say)
            case _:
                await say(await self._answer_once(parameters))

    async def _answer_once(self, parameters: msgspec.Struct) -> msgspec.Struct:
        match parameters:
            case Nothing():
                return self._overview.health()
            case HistoryCall():
                return await self._looking.history(parameters)
            case ExplainCall():
                return self._looking.explain(parameters)
            case SubmitCall():
                return await self._submit(parameters)
            case ReapCall():
                return await self._reaper.reap(dry_run=parameters.dry_run)
            case ReloadCall():
                return await self._reloader.reload()
            case _:
                return await self._steer(parameters)

    async def _steer(self, parameters: msgspec.Struct) -> msgspec.Struct:
        match parameters:
            case FreezeCall() | ThawCall():
                return await self._steering.freeze_or_thaw(parameters)
            case PauseCall() | ResumeCall():
                return await self._steering.pause_or_resume(parameters)
            case RetryCall():
                return await self._steering.retry(parameters)
            case _:
                raise AssertionError(f"nobody answers {type(parameters).__name__}")

    async def _submit(self, call: SubmitCall) -> SubmitReply:
        names = self._sources.names
        name = call.source or names[0]
        source = self._sources.named(name)
        if source is None:
            raise NoSuchTarget(f"{name}: no such source: there are {', '.join(names)}")
        return SubmitReply(key=await source.submit(call.name, call.text), source=name)
