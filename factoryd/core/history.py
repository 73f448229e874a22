"""What became of an issue, told from its facts: its attempts, their runs and how it ended."""

from collections.abc import Iterable

from msgspec.structs import replace

from factoryd.core.events import (
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Fact,
    HandoffCleared,
    HandoffMade,
    IssueCancelled,
    IssueClaimed,
    IssueDone,
    IssueEscalated,
    IssueParked,
    IssueReopened,
    IssueRerouted,
    IssueStopping,
    OutcomeWithheld,
    OutcomeWritten,
    Recorded,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarting,
    StageStarted,
)
from factoryd.core.model import Data, Exit, Issue, IssueState, Receipt, RunId, StopReport

OUTCOMES: dict[type[Fact], IssueState] = {
    IssueDone: IssueState.DONE,
    IssueParked: IssueState.PARKED,
    IssueCancelled: IssueState.CANCELLED,
}
"""The facts that finish an issue, and as what."""


class PastRun(Data, frozen=True, kw_only=True):
    """A run, with its receipt once its scope is left; moments are Unix seconds."""

    run: RunId
    agent: str
    role: str
    round: int
    stage: int
    resumes: int
    started_at: float
    exit: Exit | None = None
    result: RunResult | None = None
    reason: str | None = None
    report: StopReport | None = None
    """With what the reaper did later, for a tree that was handed to it."""
    receipt: Receipt | None = None


class PastAttempt(Data, frozen=True, kw_only=True):
    """An attempt and its runs, oldest first; `result` is None while it goes on."""

    attempt: int
    started_at: float
    ended_at: float | None = None
    result: AttemptResult | None = None
    reason: str | None = None
    round: int = 1
    stage: int = 0
    runs: tuple[PastRun, ...] = ()


class PastIssue(Data, frozen=True, kw_only=True):
    """An issue from its claim to its end, or to now: one that came back is there again for each time.

    `since` and `ended_at` are Unix seconds; `seq` is the number of the fact that ended it. An escalated
    issue has ended without an attempt. `ending` are the facts about the end, in order.
    """

    issue: Issue
    repo: str
    recipe: str
    since: float
    outcome: IssueState | None = None
    ended_at: float | None = None
    seq: int | None = None
    reason: str | None = None
    attempts: tuple[PastAttempt, ...] = ()
    ending: tuple[Recorded, ...] = ()

    @property
    def attempts_used(self) -> int:
        """Return how many attempts have ended and count."""
        free = {None, AttemptResult.DEFERRED}
        return sum(one.result not in free for one in self.attempts)

    @property
    def rounds(self) -> int:
        """Return how many rounds the newest attempt had."""
        return self.attempts[-1].round if self.attempts else 0

    @property
    def cpu_s(self) -> float | None:
        """Return the CPU seconds of all agents, of the runs where it is known; None for none."""
        receipts = [run.receipt for one in self.attempts for run in one.runs]
        known = [one.cpu_s for one in receipts if one is not None and one.cpu_s is not None]
        return sum(known) if known else None

    @property
    def wall_s(self) -> float | None:
        """Return the seconds from the claim to the end."""
        return None if self.ended_at is None else self.ended_at - self.since


def recount(facts: Iterable[Recorded]) -> list[PastIssue]:
    """Return what the facts of one issue tell, oldest first; all of its facts, in order, are needed.

    Kinds of facts that are of no concern here are passed over.
    """
    past: list[PastIssue] = []
    for recorded in facts:
        match recorded.fact:
            case IssueClaimed() | IssueEscalated():
                past.append(_open(recorded.fact, recorded))
            case HandoffCleared():
                past[:] = [_clear_handoff(one, recorded.fact) for one in past]
            case _:
                past[-1:] = [_go_on(one, recorded) for one in past[-1:]]
    return past


def _open(fact: IssueClaimed | IssueEscalated, recorded: Recorded) -> PastIssue:
    if isinstance(fact, IssueClaimed):
        return PastIssue(issue=fact.work, repo=fact.repo, recipe=fact.recipe, since=recorded.at)
    return PastIssue(
        issue=fact.work,
        repo="",
        recipe="",
        since=recorded.at,
        outcome=IssueState.ESCALATED,
        ended_at=recorded.at,
        seq=recorded.seq,
        reason=fact.reason,
        ending=(recorded,),
    )


def _go_on(past: PastIssue, recorded: Recorded) -> PastIssue:
    match recorded.fact:
        case IssueRerouted() as fact:
            return replace(past, issue=fact.work, repo=fact.repo, recipe=fact.recipe)
        case AttemptStarted(attempt=number):
            begun = PastAttempt(attempt=number, started_at=recorded.at)
            return replace(past, attempts=(*past.attempts, begun))
        case IssueStopping() | IssueDone() | IssueParked() | IssueCancelled():
            return _end(past, recorded)
        case OutcomeWritten() | OutcomeWithheld() | IssueReopened():
            return replace(past, ending=(*past.ending, recorded))
        case _ if past.attempts:
            *before, attempt = past.attempts
            return replace(past, attempts=(*before, _go_on_with(attempt, recorded)))
        case _:
            return past


def _end(past: PastIssue, recorded: Recorded) -> PastIssue:
    """Return an issue that has ended; or has not after all, when its end is withdrawn."""
    outcome = OUTCOMES.get(type(recorded.fact))
    return replace(
        past,
        outcome=outcome,
        ended_at=None if outcome is None else recorded.at,
        seq=None if outcome is None else recorded.seq,
        reason=None if outcome is None else getattr(recorded.fact, "reason", None),
        ending=(*past.ending, recorded),
    )


def _go_on_with(attempt: PastAttempt, recorded: Recorded) -> PastAttempt:
    match recorded.fact:
        case StageStarted() as fact:
            return replace(attempt, round=fact.round, stage=fact.stage)
        case AttemptEnded() as fact:
            return replace(attempt, ended_at=recorded.at, result=fact.result, reason=fact.reason)
        case RunStarting() as fact:
            run = PastRun(
                run=fact.run,
                agent=fact.agent,
                role=fact.role,
                round=attempt.round,
                stage=attempt.stage,
                resumes=fact.resumes,
                started_at=recorded.at,
            )
            return replace(attempt, runs=(*attempt.runs, run))
        case RunExited() | RunEmptied() | HandoffMade() as fact:
            runs = tuple(
                _end_run(one, fact) if one.run == fact.run else one for one in attempt.runs
            )
            return replace(attempt, runs=runs)
        case _:
            return attempt


def _end_run(run: PastRun, fact: RunExited | RunEmptied | HandoffMade) -> PastRun:
    if isinstance(fact, RunExited):
        return replace(run, exit=fact.exit)
    return replace(
        run, result=fact.result, reason=fact.reason, report=fact.report, receipt=fact.receipt
    )


def _clear_handoff(past: PastIssue, fact: HandoffCleared) -> PastIssue:
    attempts = tuple(
        replace(
            one,
            runs=tuple(_add_report(run, fact) if run.run == fact.run else run for run in one.runs),
        )
        for one in past.attempts
    )
    return replace(past, attempts=attempts)


def _add_report(run: PastRun, fact: HandoffCleared) -> PastRun:
    first, later = run.report or StopReport(), fact.report
    report = replace(
        later,
        signals=tuple(dict.fromkeys((*first.signals, *later.signals))),
        killed=first.killed + later.killed,
    )
    return replace(run, report=report)
