"""Answers laid out as words and cells, before anyone decides how to draw them."""

from datetime import datetime

import msgspec

from factoryd.wire.answers import (
    AgentView,
    DaemonView,
    ExplainReply,
    FrostReply,
    HandoffView,
    HealthReply,
    IssueView,
    KilledView,
    PauseReply,
    ReloadReply,
    StatusReply,
)
from factoryd.wire.checkup import Checkup, Verdict
from factoryd.wire.plain import UNKNOWN, align, duration, printable, size

COLUMNS = (
    "issue/agent",
    "state",
    "age",
    "attempt",
    "round/stage",
    "pid",
    "cpu",
    "memory",
    "processes",
    "resumes",
    "output",
    "about",
)
NUMBERS = frozenset(COLUMNS[2:11])
"""The columns that line up on the right."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: an issue, or one of its agents; an empty cell does not apply to it."""

    is_issue: bool
    cells: tuple[str, ...]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All that `status` shows; `alarms` want a person's attention."""

    headline: str
    alarms: tuple[str, ...]
    rows: tuple[Row, ...]
    footer: str


def lay_out(status: StatusReply, now: datetime) -> Picture:
    """Return what there is to show of a status, ages counted up to `now`, safe to print."""
    rows: list[Row] = []
    for issue in status.issues:
        rows.append(_issue_row(issue, now))
        rows.extend(_agent_row(agent, now) for agent in issue.agents)
    degraded = (f"degraded: {part}" for part in status.daemon.degraded)
    problems = (
        f"source {source.name} ({source.kind}) {source.state}: {problem.where}: {problem.reason}"
        for source in status.sources
        for problem in source.problems
    )
    failing = (
        f"source {source.name} ({source.kind}) {source.state}"
        for source in status.sources
        if source.state != "ok" and not source.problems
    )
    mistakes = (f"configuration refused: {mistake}" for mistake in status.daemon.config_mistakes)
    handoffs = (_handoff(handoff, now) for handoff in status.handoffs)
    return Picture(
        headline=printable(_headline(status.daemon, now)),
        alarms=tuple(map(printable, (*degraded, *mistakes, *failing, *problems, *handoffs))),
        rows=tuple(rows),
        footer=_footer(status),
    )


def plain_picture(picture: Picture) -> str:
    """Return a picture as aligned text; every line of its table has every cell."""
    table = [COLUMNS, *(tuple(cell or UNKNOWN for cell in row.cells) for row in picture.rows)]
    drawn = align(table, NUMBERS) if picture.rows else ["no issues"]
    return "\n".join([picture.headline, *picture.alarms, "", *drawn, "", picture.footer])


def plain_health(health: HealthReply) -> str:
    """Return what `health` says of a daemon that answers."""
    beat = duration(health.heartbeat_age_s)
    head = f"{health.state}: factoryd (pid {health.pid}), newest heartbeat {beat} ago"
    columns = ("part", "silent", "may be silent", "late")
    table = [
        (one.name, duration(one.silent_s), duration(one.max_silence_s), "late" if one.late else "")
        for one in health.pulses
    ]
    lines = align([columns, *table], frozenset(columns[1:3])) if table else []
    degraded = (f"degraded: {part}" for part in health.degraded)
    return "\n".join(map(printable, (head, *degraded, *lines)))


def plain_killed(killed: KilledView) -> str:
    """Return one line on how ending one run went."""
    result = "emptied" if killed.emptied else f"NOT EMPTIED, {killed.survivors} left"
    signals = "+".join(killed.signals) or "no signal"
    skipped = "".join(f", skipped {one.pid}: {one.reason}" for one in killed.skipped)
    return printable(
        f"{killed.agent or UNKNOWN}  {killed.run}  {result}  {killed.killed} ended by {signals}"
        f"{skipped}  {duration(killed.took_s)}"
    )


def plain_frost(frost: FrostReply, done: str) -> str:
    """Return one line on an issue that is `frozen` or `thawed` now."""
    return printable(f"{frost.issue}  {done}, {frost.runs} of {frost.runs + frost.late} runs")


def plain_pause(pause: PauseReply) -> str:
    """Return one line on whether dispatching is paused now."""
    if not pause.paused:
        return "dispatching goes on" if pause.changed else "dispatching was not paused"
    already = "" if pause.changed else " already"
    return printable(f"dispatching is paused{already}: {pause.reason or UNKNOWN}")


def plain_reload(reload: ReloadReply) -> str:
    """Return what has changed, a key on each line; those that wait for a restart say so."""
    keys = [key for key in reload.changed if key not in reload.restart]
    waiting = [f"{key}  from the next start of factoryd" for key in reload.restart]
    return "\n".join(map(printable, [*keys, *waiting])) or "nothing has changed"


def plain_explanation(explained: ExplainReply) -> str:
    """Return what an explanation comes to, and a table of its checks."""
    words = {True: "passed", False: "FAILED", None: UNKNOWN}
    state = explained.state or "not in the ledger"
    table = [("against it may stand", "answer", "because")]
    table += [(one.check, words[one.passed], one.detail) for one in explained.checks]
    printed = [tuple(map(printable, row)) for row in table]
    head = printable(f"{explained.issue} ({state}): {explained.verdict}")
    return "\n".join([head, "", *align(printed)])


def plain_checkup(checkup: Checkup) -> str:
    """Return one line on each thing that was looked at and, below it, what to do."""
    width = max(len(state) for state in Verdict)
    names = max((len(check.name) for check in checkup.checks), default=0)
    lines: list[str] = []
    for check in checkup.checks:
        lines.append(f"{check.state:<{width}}  {check.name:<{names}}  {check.detail}")
        if check.advice is not None:
            lines.append(f"{'':<{width}}  {'':<{names}}  -> {check.advice}")
    return "\n".join(map(printable, lines))


def age(moment: str | None, now: datetime) -> str:
    """Return how long ago a moment was (RFC 3339); what is no moment is unknown."""
    if moment is None:
        return UNKNOWN
    try:
        return duration((now - datetime.fromisoformat(moment)).total_seconds())
    except (ValueError, TypeError):
        return UNKNOWN


def _headline(daemon: DaemonView, now: datetime) -> str:
    why = f" ({daemon.paused_reason})" if daemon.paused_reason else ""
    paused = f", paused{why}" if daemon.paused else ""
    controllers = f" ({', '.join(daemon.controllers)})" if daemon.controllers else ""
    return (
        f"factoryd {daemon.version} {daemon.state}{paused}: pid {daemon.pid}, "
        f"up {age(daemon.started_at, now)}, {daemon.free_slots} of {daemon.slots} slots free, "
        f"containment {daemon.containment}{controllers}, heartbeat {duration(daemon.heartbeat_age_s)} ago"
    )


def _issue_row(issue: IssueView, now: datetime) -> Row:
    wait = f"again at {issue.not_before}" if issue.not_before is not None else None
    about = (part for part in (issue.reason, wait, issue.title) if part)
    cells = (
        issue.key,
        f"{issue.state}/frozen" if issue.frozen else issue.state,
        age(issue.since, now),
        str(issue.attempt),
        f"{issue.round}/{issue.stage}",
        *("",) * 6,
        " | ".join(about),
    )
    return Row(is_issue=True, cells=tuple(map(printable, cells)))


def _agent_row(agent: AgentView, now: datetime) -> Row:
    cells = (
        f"  {agent.name}",
        agent.state,
        age(agent.started_at, now),
        "",
        "",
        _count(agent.pid),
        duration(agent.cpu_s),
        size(agent.memory_bytes),
        _count(agent.processes),
        str(agent.resumes),
        age(agent.last_output_at, now),
        f"exit {agent.exit}" if agent.exit is not None else "",
    )
    return Row(is_issue=False, cells=tuple(map(printable, cells)))


def _handoff(handoff: HandoffView, now: datetime) -> str:
    return (
        f"not emptied for {age(handoff.since, now)}: {handoff.agent} of {handoff.issue} "
        f"(run {handoff.run}): {handoff.reason}"
    )


def _footer(status: StatusReply) -> str:
    counters = status.counters
    return (
        f"dispatched {counters.dispatched}, done {counters.done}, failed {counters.failed}, "
        f"parked {counters.parked}, resumed {counters.resumed}, reaped {counters.reaped}, "
        f"name collisions {counters.name_collisions}"
    )


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)
