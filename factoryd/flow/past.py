"""Finished issues as callers see them, told from the facts that a store keeps."""

from factoryd.core.errors import NoSuchTarget
from factoryd.core.events import Recorded
from factoryd.core.history import OUTCOMES, PastAttempt, PastIssue, PastRun, recount
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.records import same_issue
from factoryd.flow.views import fact_view, rfc3339
from factoryd.ports import LedgerStore
from factoryd.wire.answers import HistoryReply, PastAttemptView, PastIssueView, PastRunView
from factoryd.wire.paging import ISSUES_PER_PAGE

MAX_ISSUES = ISSUES_PER_PAGE
"""Issues in one answer, at most."""

_PAGE = 1000
_NEWEST = (1 << 63) - 1


def read_finished(store: LedgerStore, before: int | None, limit: int) -> HistoryReply:
    """Return the issues that have ended newest, each as often as it has; for `before` see the call.

    Blocks for reads of the store, as does `read_issue`.
    """
    limit = max(1, min(limit, MAX_ISSUES))
    below = upper = _NEWEST if before is None else max(0, min(before, _NEWEST))
    found, seen = dict[int, PastIssue](), set[str]()
    while True:
        ends = store.read_newest(list(OUTCOMES), upper, limit)
        keys = {same_issue(end.fact.issue) for end in ends} - seen
        seen |= keys
        for key in keys:
            found |= {one.seq: one for one in _read(store, key) if one.seq and _is_over(one)}
        newest = [seq for seq in sorted(found, reverse=True) if seq < below][:limit]
        # An end that was withdrawn counts for none: then there are fewer issues than ends.
        if len(ends) < limit or (len(newest) == limit and newest[-1] >= ends[-1].seq):
            return HistoryReply(issues=tuple(_issue(found[seq]) for seq in newest))
        upper = ends[-1].seq


def read_issue(store: LedgerStore, key: str, before: int | None, limit: int) -> HistoryReply:
    """Return all that an issue went through, finished or not; raise `NoSuchTarget` for nothing."""
    past = _read(store, key)
    if not past:
        raise unknown(key)
    wanted = [one for one in reversed(past) if before is None or (one.seq or _NEWEST) < before]
    return HistoryReply(issues=tuple(map(_issue, wanted[: max(1, min(limit, MAX_ISSUES))])))


def unknown(target: str) -> NoSuchTarget:
    """Return the error for an issue of which the ledger has nothing."""
    return NoSuchTarget(
        f"{target}: no such issue in the ledger: nothing was done for it yet, or that is forgotten "
        "([history] of the configuration says when)"
    )


def _read(store: LedgerStore, key: str) -> list[PastIssue]:
    facts: list[Recorded] = []
    while True:
        page = store.read_facts(facts[-1].seq if facts else 0, _PAGE, key)
        facts += page
        if len(page) < _PAGE:
            return recount(facts)


def _is_over(past: PastIssue) -> bool:
    return past.outcome in TERMINAL


def _issue(past: PastIssue) -> PastIssueView:
    return PastIssueView(
        key=past.issue.key,
        title=past.issue.title,
        repo=past.repo,
        recipe=past.recipe,
        outcome=past.outcome,
        reason=past.reason,
        seq=past.seq,
        since=rfc3339(past.since),
        ended_at=None if past.ended_at is None else rfc3339(past.ended_at),
        wall_s=past.wall_s,
        cpu_s=past.cpu_s,
        attempts_used=past.attempts_used,
        rounds=past.rounds,
        attempts=tuple(map(_attempt, past.attempts)),
        ending=tuple(map(fact_view, past.ending)),
    )


def _attempt(past: PastAttempt) -> PastAttemptView:
    return PastAttemptView(
        attempt=past.attempt,
        started_at=rfc3339(past.started_at),
        ended_at=None if past.ended_at is None else rfc3339(past.ended_at),
        result=past.result,
        reason=past.reason,
        rounds=past.round,
        runs=tuple(map(_run, past.runs)),
    )


def _run(past: PastRun) -> PastRunView:
    receipt, report = past.receipt, past.report
    return PastRunView(
        agent=past.agent,
        role=past.role,
        run=past.run,
        round=past.round,
        stage=past.stage,
        resumes=past.resumes,
        started_at=rfc3339(past.started_at),
        exit=None if past.exit is None else past.exit.status,
        result=past.result,
        reason=past.reason,
        wall_s=None if receipt is None else receipt.wall_s,
        cpu_s=None if receipt is None else receipt.cpu_s,
        peak_memory_bytes=None if receipt is None else receipt.peak_memory_bytes,
        peak_processes=None if receipt is None else receipt.peak_processes,
        oom_kills=None if receipt is None else receipt.oom_kills,
        signals=() if report is None else report.signals,
        killed=None if report is None else report.killed,
        survivors=None if report is None else report.survivors,
        emptied=None if report is None else report.emptied,
    )
