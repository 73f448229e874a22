"""The types of what the daemon answers over the control socket, and of what the answers hold.

Moments are RFC 3339 text in UTC, durations are seconds; what is unknown is null.
"""

import msgspec


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
    controllers: tuple[str, ...]
    paused_reason: str | None = None
    config_mistakes: tuple[str, ...] = ()


class ProblemView(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a source for a person to mend."""

    where: str
    reason: str


class SourceView(msgspec.Struct, frozen=True, kw_only=True):
    """A source of issues: `ok`, or `failing` with its problems.

    One that is `leaving` is no longer in the configuration: it is only written back to, until what
    was claimed from it is over.
    """

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
    frozen: bool = False
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
    signalled: tuple[SignalledView, ...]
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


class PastRunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was, and its receipt; what is not known, or not yet, is null.

    Time is in seconds, memory in bytes. `oom_kills` counts processes killed for lack of memory.
    `signals` are those that ended the tree, `killed` how many processes they ended, `survivors` how
    many are left; `emptied` is proof that nothing is.
    """

    agent: str
    role: str
    run: str
    round: int
    stage: int
    resumes: int
    started_at: str
    exit: int | None
    result: str | None
    reason: str | None
    wall_s: float | None
    cpu_s: float | None
    peak_memory_bytes: int | None
    peak_processes: int | None
    oom_kills: int | None
    signals: tuple[str, ...]
    killed: int | None
    survivors: int | None
    emptied: bool | None


class PastAttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt and its runs, oldest first; `result` is null while it goes on."""

    attempt: int
    started_at: str
    ended_at: str | None
    result: str | None
    reason: str | None
    rounds: int
    runs: tuple[PastRunView, ...]


class PastIssueView(msgspec.Struct, frozen=True, kw_only=True):
    """An issue from its claim to its end; `outcome` is null while it goes on.

    `seq` is the number of the fact that ended it, `attempts_used` how many attempts counted, `cpu_s`
    what all its agents used, as far as it is known. `ending` are the facts about its end, in order.
    """

    key: str
    title: str
    repo: str
    recipe: str
    outcome: str | None
    reason: str | None
    seq: int | None
    since: str
    ended_at: str | None
    wall_s: float | None
    cpu_s: float | None
    attempts_used: int
    rounds: int
    attempts: tuple[PastAttemptView, ...]
    ending: tuple[FactView, ...]


class HistoryReply(msgspec.Struct, frozen=True, kw_only=True):
    """Issues as they were, newest first."""

    issues: tuple[PastIssueView, ...]


class PulseView(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the daemon: how long it has been silent and how long it may be."""

    name: str
    silent_s: float
    max_silence_s: float
    late: bool


class HealthReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the daemon makes progress; `state` is `ok` or `degraded`.

    `tasks` counts what the daemon does at once; with the same work it is the same number.
    """

    state: str
    pid: int
    degraded: tuple[str, ...]
    heartbeat_age_s: float | None
    pulses: tuple[PulseView, ...]
    tasks: int | None = None


class FrostReply(msgspec.Struct, frozen=True, kw_only=True):
    """An issue that was frozen or thawed: how many of its runs obey by now, and how many not yet."""

    issue: str
    runs: int
    late: int


class PauseReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether dispatching is paused now, why, and whether that is so only since this call."""

    paused: bool
    reason: str | None
    changed: bool


class ReloadReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a reading of the configuration came to: its mistakes, or what has changed by it.

    With mistakes (`FILE: key: reason`) nothing has. Of the keys that changed, `restart` names those
    that only the next daemon goes by, those of earlier readings among them.
    """

    changed: tuple[str, ...]
    restart: tuple[str, ...]
    mistakes: tuple[str, ...]


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """A check on an issue and its answer; `passed` is null where there is nothing to ask it of."""

    check: str
    passed: bool | None
    detail: str


class ExplainReply(msgspec.Struct, frozen=True, kw_only=True):
    """Every check on an issue in the order of deciding, and what they come to.

    `state` is null for an issue that the ledger does not know.
    """

    issue: str
    state: str | None
    verdict: str
    checks: tuple[FindingView, ...]


class RetryReply(msgspec.Struct, frozen=True, kw_only=True):
    """The issue that begins anew, with all its attempts."""

    issue: str


class ReapedView(msgspec.Struct, frozen=True, kw_only=True):
    """A tree that is proven empty now, and the processes of it that were found."""

    agent: str
    issue: str
    run: str
    pids: tuple[int, ...]


class LeftView(msgspec.Struct, frozen=True, kw_only=True):
    """What was left alone, and why; `pid` is null where no process is meant."""

    agent: str
    pid: int | None
    reason: str


class ReapReply(msgspec.Struct, frozen=True, kw_only=True):
    """What the reaper did, or would do; `daemon` is `alive`, `hung` or `dead` as it was found.

    `survivors` counts the processes that may be left, one at least for each tree not proven empty.
    """

    daemon: str
    reaped: tuple[ReapedView, ...] = ()
    skipped: tuple[LeftView, ...] = ()
    survivors: int = 0


class ShutdownReply(msgspec.Struct, frozen=True, kw_only=True):
    """The process that is stopping now."""

    pid: int
