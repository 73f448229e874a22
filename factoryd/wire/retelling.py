"""How facts and finished issues read, for a person or a program: the same with a daemon and without."""

from collections.abc import Sequence

import msgspec

from factoryd.wire.answers import FactView, PastAttemptView, PastIssueView, PastRunView
from factoryd.wire.plain import UNKNOWN, align, duration, printable, size

ISSUES = ("issue", "outcome", "attempts", "rounds", "cpu", "wall", "ended", "about")
RUNS = (
    "run",
    "round/stage",
    "result",
    "exit",
    "wall",
    "cpu",
    "memory",
    "processes",
    "signals",
    "survivors",
    "because",
)
_NUMBERS = frozenset(
    {"attempts", "rounds", "cpu", "wall", "exit", "memory", "processes", "survivors"}
)
_IN_EVERY_FACT = frozenset({"type", "issue", "run"})
_NOT_PLAIN = (b"{", b"[", b"null")


def encode_lines(items: Sequence[msgspec.Struct]) -> list[str]:
    """Return a line of JSON for each item."""
    return [msgspec.json.encode(one).decode() for one in items]


def retell(issues: Sequence[PastIssueView], *, whole: bool, as_json: bool) -> list[str]:
    """Return issues as lines: JSON, or a table, or the `whole` of each."""
    if as_json:
        return encode_lines(issues)
    return [line for one in issues for line in plain_issue(one)] if whole else plain_history(issues)


def plain_facts(facts: Sequence[FactView]) -> list[str]:
    """Return a line on each fact."""
    return [plain_fact(one) for one in facts]


def plain_fact(fact: FactView) -> str:
    """Return one line on a fact: what every fact has, then its own plain members."""
    members = msgspec.json.decode(fact.body, type=dict[str, msgspec.Raw])
    details = [
        f"{name}={bytes(value).decode()}"
        for name, value in members.items()
        if name not in _IN_EVERY_FACT and not bytes(value).startswith(_NOT_PLAIN)
    ]
    words = [f"{fact.seq:>6}", fact.at, f"{fact.kind:<16}", fact.issue or UNKNOWN]
    return printable("  ".join([*words, fact.run or UNKNOWN, *details]))


def plain_history(issues: Sequence[PastIssueView]) -> list[str]:
    """Return a table of issues, a line each; no lines for none."""
    table = [ISSUES, *map(_issue_row, issues)]
    return align(table, _NUMBERS) if issues else []


def plain_issue(issue: PastIssueView) -> list[str]:
    """Return all that an issue went through: attempts, runs with their receipts, and its end."""
    because = f": {issue.reason}" if issue.reason else ""
    lines = [
        f"{issue.key} {issue.outcome or 'not ended'}{because}",
        f"  {issue.title}",
        f"  repo {issue.repo or UNKNOWN}, recipe {issue.recipe or UNKNOWN}",
        f"  from {issue.since} to {issue.ended_at or UNKNOWN}",
        f"  wall {duration(issue.wall_s)}, cpu {duration(issue.cpu_s)}",
    ]
    for attempt in issue.attempts:
        lines += _attempt(attempt)
    return [*map(printable, lines), *map(plain_fact, issue.ending)]


def _issue_row(issue: PastIssueView) -> tuple[str, ...]:
    cells = (
        issue.key,
        issue.outcome or UNKNOWN,
        str(issue.attempts_used),
        str(issue.rounds),
        duration(issue.cpu_s),
        duration(issue.wall_s),
        issue.ended_at or UNKNOWN,
        " | ".join(part for part in (issue.reason, issue.title) if part),
    )
    return tuple(map(printable, cells))


def _attempt(attempt: PastAttemptView) -> list[str]:
    because = f": {attempt.reason}" if attempt.reason else ""
    ended = attempt.ended_at or UNKNOWN
    head = f"  attempt {attempt.attempt} {attempt.result or 'goes on'}{because}"
    table = [RUNS, *map(_run_row, attempt.runs)]
    runs = align(table, _NUMBERS) if attempt.runs else []
    return [head, f"    from {attempt.started_at} to {ended}", *(f"    {line}" for line in runs)]


def _run_row(run: PastRunView) -> tuple[str, ...]:
    cells = (
        run.run,
        f"{run.round}/{run.stage}",
        run.result or UNKNOWN,
        _count(run.exit),
        duration(run.wall_s),
        duration(run.cpu_s),
        size(run.peak_memory_bytes),
        _count(run.peak_processes),
        "+".join(run.signals) or UNKNOWN,
        _count(run.survivors),
        run.reason or "",
    )
    return tuple(map(printable, cells))


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)
