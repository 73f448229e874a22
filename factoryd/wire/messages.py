"""The calls that factoryd answers over the control socket, and the form of every message.

They and `answers` are the interface: its description is generated from them. Durations are seconds;
what is unknown is null.
"""

import msgspec

from factoryd.wire import framing
from factoryd.wire.answers import (
    EventsReply,
    ExplainReply,
    FrostReply,
    HealthReply,
    HistoryReply,
    KillReply,
    LogsReply,
    PauseReply,
    ReapReply,
    ReloadReply,
    RetryReply,
    ShutdownReply,
    StatusReply,
    SubmitReply,
)
from factoryd.wire.framing import END

INTERFACE = framing.INTERFACE
SERVICE_INTERFACE = framing.SERVICE_INTERFACE


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: a method's full name and its parameters, still encoded."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    more: bool = False
    oneway: bool = False
    upgrade: bool = False


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer: parameters still encoded, whether more will come, or an error's full name."""

    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    continues: bool = False
    error: str | None = None


# ------------------------------------------------------------------------------------- parameters


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """No parameters."""


class StatusCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the picture of now; with targets, only of those issues."""

    targets: tuple[str, ...] = ()


class SubmitCall(msgspec.Struct, frozen=True, kw_only=True):
    """Put an issue (front matter and body) into a source that takes submissions."""

    text: str
    name: str = ""
    source: str | None = None


class KillCall(msgspec.Struct, frozen=True, kw_only=True):
    """End issues; a target is an issue key or the name of an agent, which ends its whole issue.

    `grace_s` replaces the configured grace, `now` skips it. Without `wait` the answer comes once
    stopping has begun.
    """

    targets: tuple[str, ...] = ()
    all: bool = False
    grace_s: float | None = None
    now: bool = False
    reason: str | None = None
    wait: bool = True


class LogsCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for an agent's output: the last `lines` of its newest run, or of the run named."""

    target: str
    run: str | None = None
    lines: int = 100
    follow: bool = False


class EventsCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for facts numbered above `since`, at most `limit` of them unless following."""

    since: int = 0
    limit: int = 1000
    issue: str | None = None
    follow: bool = False


class HistoryCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for the newest `limit` finished issues, or for all that one issue went through.

    A target is an issue's key or the name of one of its agents. With `before`, only what ended with a
    fact numbered below it: that is how to go on.
    """

    target: str | None = None
    before: int | None = None
    limit: int = 100


class FreezeCall(msgspec.Struct, frozen=True, kw_only=True):
    """Have an issue stand still; a target is its key or the name of any of its agents."""

    target: str
    reason: str | None = None


class ThawCall(msgspec.Struct, frozen=True, kw_only=True):
    """Have a frozen issue go on; a target is its key or the name of any of its agents."""

    target: str


class PauseCall(msgspec.Struct, frozen=True, kw_only=True):
    """Have nothing new dispatched until `Resume`."""

    reason: str | None = None


class ResumeCall(msgspec.Struct, frozen=True, kw_only=True):
    """Have dispatching go on."""


class ExplainCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask why an issue, known or not, is dispatched or not; an agent's name means its issue."""

    target: str


class RetryCall(msgspec.Struct, frozen=True, kw_only=True):
    """Have an ended or escalated issue begin anew; an agent's name means its issue."""

    target: str
    reason: str | None = None


class ReleaseCall(msgspec.Struct, frozen=True, kw_only=True):
    """End an issue as done, its work being done elsewhere; an agent's name means its issue."""

    target: str
    reason: str | None = None


class ReloadCall(msgspec.Struct, frozen=True, kw_only=True):
    """Have the configuration read anew."""


class ReapCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for trees that nobody owns to be emptied, or what that would do."""

    dry_run: bool = False


class ShutdownCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the daemon to stop; the connection closes when it has.

    With `keep_agents` it leaves its agents running, for the next daemon to take over.
    """

    reason: str | None = None
    keep_agents: bool = False


# ----------------------------------------------------------------------------------------- errors


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """What every error of this interface carries: one sentence for a person."""

    reason: str


class MethodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A method: its parameters, its answer, whether it may stream and whether it only reads.

    One that `lasts` may take as long as agents take to end.
    """

    call: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    doc: str
    streams: bool = False
    reads: bool = False
    lasts: bool = False


METHODS = {
    "Status": MethodSpec(call=StatusCall, reply=StatusReply, reads=True, doc="The picture of now."),
    "Watch": MethodSpec(
        call=StatusCall,
        reply=StatusReply,
        streams=True,
        reads=True,
        doc="The picture of now, and again whenever it changes. Needs `more`.",
    ),
    "Submit": MethodSpec(call=SubmitCall, reply=SubmitReply, doc="Puts an issue into a source."),
    "Kill": MethodSpec(
        call=KillCall,
        reply=KillReply,
        streams=True,
        doc="Ends issues; with `more`, reports each run as it is emptied.",
    ),
    "Logs": MethodSpec(
        call=LogsCall,
        reply=LogsReply,
        streams=True,
        reads=True,
        doc="An agent's output; to follow it needs `more`.",
    ),
    "Events": MethodSpec(
        call=EventsCall,
        reply=EventsReply,
        streams=True,
        reads=True,
        doc="Facts of the ledger; to follow it needs `more`.",
    ),
    "History": MethodSpec(
        call=HistoryCall,
        reply=HistoryReply,
        reads=True,
        doc="Finished issues with their attempts, runs and receipts, newest first.",
    ),
    "Reap": MethodSpec(
        call=ReapCall,
        reply=ReapReply,
        lasts=True,
        doc="Empties process trees that nobody owns, now instead of at the next round.",
    ),
    "Health": MethodSpec(
        call=Nothing, reply=HealthReply, reads=True, doc="Whether the daemon makes progress."
    ),
    "Freeze": MethodSpec(
        call=FreezeCall,
        reply=FrostReply,
        doc="Has an issue stand still with all its agents until it is thawed.",
    ),
    "Thaw": MethodSpec(call=ThawCall, reply=FrostReply, doc="Has a frozen issue go on."),
    "Explain": MethodSpec(
        call=ExplainCall,
        reply=ExplainReply,
        reads=True,
        doc="Every check on an issue with its answer, in the order of deciding.",
    ),
    "Retry": MethodSpec(
        call=RetryCall,
        reply=RetryReply,
        doc="Has an ended or escalated issue begin anew, with all its attempts.",
    ),
    "Release": MethodSpec(
        call=ReleaseCall,
        reply=KillReply,
        streams=True,
        doc="Ends an issue as done; with `more`, reports each run as it is emptied.",
    ),
    "Pause": MethodSpec(
        call=PauseCall,
        reply=PauseReply,
        doc="Has nothing new dispatched, over restarts too; what runs goes on.",
    ),
    "Resume": MethodSpec(call=ResumeCall, reply=PauseReply, doc="Has dispatching go on."),
    "Reload": MethodSpec(
        call=ReloadCall,
        reply=ReloadReply,
        lasts=True,
        doc="Reads the configuration anew; with mistakes the old one stays in force.",
    ),
    "Shutdown": MethodSpec(
        call=ShutdownCall,
        reply=ShutdownReply,
        doc="Stops the daemon and every agent, or with `keep_agents` only the daemon; the connection "
        "closes when that is done.",
    ),
}

_encoder = msgspec.json.Encoder()
_call_decoder = msgspec.json.Decoder(Call)
_reply_decoder = msgspec.json.Decoder(Reply)


def encode_call(
    name: str, parameters: msgspec.Struct, *, more: bool = False, interface: str = INTERFACE
) -> bytes:
    """Return the message that calls a method, its end included."""
    raw = msgspec.Raw(_encoder.encode(parameters))
    return _encoder.encode(Call(method=f"{interface}.{name}", parameters=raw, more=more)) + END


def decode_call(message: bytes) -> Call:
    """Return the call in a message (without its end); raise `msgspec.DecodeError` if it is none."""
    return _call_decoder.decode(message)


def encode_reply(parameters: msgspec.Struct, *, continues: bool = False) -> bytes:
    """Return the message of an answer, its end included."""
    raw = msgspec.Raw(_encoder.encode(parameters))
    return _encoder.encode(Reply(parameters=raw, continues=continues)) + END


def encode_error(error: str, parameters: msgspec.Struct) -> bytes:
    """Return the message of an error, its end included; `error` is its full name."""
    raw = msgspec.Raw(_encoder.encode(parameters))
    return _encoder.encode(Reply(parameters=raw, error=error)) + END


def decode_reply(message: bytes) -> Reply:
    """Return the answer in a message (without its end), parameters still encoded."""
    return _reply_decoder.decode(message)
