"""The types of what factoryctl and factoryd say to each other over the control socket.

They are the interface: its description is generated from them. Moments are RFC 3339 text in UTC,
durations are seconds; what is unknown is null.
"""

import msgspec

from factoryd.wire import framing
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


class ShutdownCall(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the daemon to stop; the connection closes when it has."""

    reason: str | None = None


# ---------------------------------------------------------------------------------------- answers


class DaemonView(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon itself."""

    pid: int
    version: str
    state: str
    started_at: str
    containment: str
    paused: bool
    slots: int
    free_slots: int
    degraded: tuple[str, ...]
    heartbeat_age_s: float | None
    adopted_runs: int


class ProblemView(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a source for a person to mend."""

    where: str
    reason: str


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A source of issues: `ok`, or `failing` with its problems."""

    name: str
    kind: str
    state: str
    problems: tuple[ProblemView, ...]


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    """An agent of an issue's present attempt, with its newest run."""

    name: str
    role: str
    state: str
    run: str
    pid: int | None
    started_at: str | None
    resumes: int
    session: str | None
    processes: int | None
    cpu_s: float | None
    memory_bytes: int | None
    peak_processes: int | None
    last_output_at: str | None
    exit: int | None


class IssueView(msgspec.Struct, frozen=True, kw_only=True):
    """An issue, known to the ledger or shown by a source."""

    key: str
    title: str
    state: str
    attempt: int
    round: int
    stage: int
    since: str
    not_before: str | None
    reason: str | None
    agents: tuple[AgentView, ...]


class HandoffView(msgspec.Struct, frozen=True, kw_only=True):
    """A tree that could not be proven empty, owed to the reaper."""

    agent: str
    issue: str
    run: str
    reason: str
    since: str


class CountersView(msgspec.Struct, frozen=True, kw_only=True):
    """How often things happened, over the life of the ledger."""

    dispatched: int
    done: int
    failed: int
    parked: int
    resumed: int
    name_collisions: int
    reaped: int


class StatusReply(msgspec.Struct, frozen=True, kw_only=True):
    """The picture of now."""

    daemon: DaemonView
    sources: tuple[SourceView, ...]
    issues: tuple[IssueView, ...]
    handoffs: tuple[HandoffView, ...]
    counters: CountersView


class SubmitReply(msgspec.Struct, frozen=True, kw_only=True):
    """The key under which the issue waits, and in which source."""

    key: str
    source: str


class SkippedView(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was left alone, and why."""

    pid: int
    reason: str


class SignalledView(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was signalled, and with what, in order; each signal is named once."""

    pid: int
    signals: tuple[str, ...]


class KilledView(msgspec.Struct, frozen=True, kw_only=True):
    """What ending one run took; `emptied` is proof that nothing of it exists any more."""

    agent: str
    run: str
    signals: tuple[str, ...]
    killed: int
    signalled: tuple[SignalledView, ...] = ()
    skipped: tuple[SkippedView, ...]
    survivors: int
    emptied: bool
    took_s: float


class KillReply(msgspec.Struct, frozen=True, kw_only=True):
    """Reports since the last reply; `ended` names the issues that are over now."""

    agents: tuple[KilledView, ...]
    ended: tuple[str, ...]


class LineView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of output; `offset` is the position in the run's output where it ends (bytes)."""

    offset: int
    text: str


class LogsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one run's output."""

    agent: str
    run: str
    lines: tuple[LineView, ...]


class FactView(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of the ledger; `body` is as it is stored."""

    seq: int
    at: str
    kind: str
    issue: str
    run: str | None
    body: msgspec.Raw


class EventsReply(msgspec.Struct, frozen=True, kw_only=True):
    """Facts, oldest first."""

    facts: tuple[FactView, ...]


class PulseView(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the daemon: how long it has been silent and how long it may be."""

    name: str
    silent_s: float
    max_silence_s: float
    late: bool


class HealthReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the daemon makes progress; `state` is `ok` or `degraded`."""

    state: str
    pid: int
    degraded: tuple[str, ...]
    heartbeat_age_s: float | None
    pulses: tuple[PulseView, ...]


class ShutdownReply(msgspec.Struct, frozen=True, kw_only=True):
    """The process that is stopping now."""

    pid: int


# ----------------------------------------------------------------------------------------- errors


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """What every error of this interface carries: one sentence for a person."""

    reason: str


class MethodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A method: its parameters, its answer, whether it may stream and whether it only reads."""

    call: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    doc: str
    streams: bool = False
    reads: bool = False


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
    "Health": MethodSpec(
        call=Nothing, reply=HealthReply, reads=True, doc="Whether the daemon makes progress."
    ),
    "Shutdown": MethodSpec(
        call=ShutdownCall,
        reply=ShutdownReply,
        doc="Stops the daemon and every agent; the connection closes when that is done.",
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
