"""The rules of dispatch, exit and retry, as pure functions."""

from collections.abc import Iterable
from enum import StrEnum

from factoryd.core.config import Config, DispatchConfig
from factoryd.core.events import RunResult
from factoryd.core.lifecycle import IN_FLIGHT, TERMINAL
from factoryd.core.model import Data, Exit, Issue, IssueState
from factoryd.core.records import IssueRecord
from factoryd.core.triage import Unrouted, choose_route, refuse_scope

TERMINAL_BLOCK = "dispatch already terminal"
IN_FLIGHT_BLOCK = "dispatch already in-flight"
BACKOFF_BLOCK = "dispatch backoff active"
LIMIT_BLOCK = "dispatch retry limit reached"
PAUSE_BLOCK = "paused"
SLOT_BLOCK = "no free slot"


class Dispatch(Data, frozen=True, kw_only=True):
    """Take the issue now."""

    issue: Issue
    repo: str
    recipe: str


class Reopen(Data, frozen=True, kw_only=True):
    """The issue ended, left ready and came back: it is new work."""

    issue: Issue


class Escalate(Data, frozen=True, kw_only=True):
    """A person must look: the issue may be worked on, but nobody knows where."""

    issue: Issue
    reason: str


class Skip(Data, frozen=True, kw_only=True):
    """Leave the issue alone for now."""

    issue: Issue
    reason: str


Decision = Dispatch | Reopen | Escalate | Skip


def block_reason(record: IssueRecord | None, now: float, max_attempts: int) -> str | None:
    """Return why an issue the ledger knows may not be dispatched, None when nothing is against it.

    A cooldown is over exactly at its end: then the issue's own scope dispatches it again.
    """
    if record is None:
        return None
    if record.state in TERMINAL:
        return TERMINAL_BLOCK
    if record.state in IN_FLIGHT and record.state is not IssueState.COOLDOWN:
        return IN_FLIGHT_BLOCK
    if record.not_before is not None and now < record.not_before:
        return BACKOFF_BLOCK
    return LIMIT_BLOCK if record.attempts_used >= max_attempts else None


def reopens(record: IssueRecord) -> bool:
    """Say whether an issue that its source shows as ready is new work although it has ended."""
    return record.state in TERMINAL and record.left_ready and record.written


def decide(issue: Issue, record: IssueRecord | None, config: Config, now: float) -> Decision:
    """Return what to do with an issue that a source shows as ready, slots and pauses aside."""
    if record is not None and reopens(record):
        return Reopen(issue=issue)
    blocked = block_reason(record, now, config.dispatch.max_attempts)
    if blocked is None and record is not None and record.state in IN_FLIGHT:
        blocked = IN_FLIGHT_BLOCK
    blocked = blocked or refuse_scope(issue, config.safety)
    if blocked:
        return Skip(issue=issue, reason=blocked)
    route = choose_route(issue, config)
    if not isinstance(route, Unrouted):
        return Dispatch(issue=issue, repo=route.repo, recipe=route.recipe)
    known = record is not None and record.state is IssueState.ESCALATED
    if known and record is not None and record.reason == route.reason:
        return Skip(issue=issue, reason=route.reason)
    return Escalate(issue=issue, reason=route.reason)


def hold_reason(*, paused: bool, free_slots: int) -> str | None:
    """Return why even an issue that may be dispatched has to wait, None when it has not to."""
    if paused:
        return PAUSE_BLOCK
    return None if free_slots > 0 else SLOT_BLOCK


def in_order(issues: Iterable[Issue]) -> list[Issue]:
    """Return issues in the order they are dispatched: priority (1 first), then age, then key."""
    lowest = float("inf")
    return sorted(
        issues,
        key=lambda i: (lowest if i.priority is None else i.priority, i.since, i.key),
    )


def cooldown_s(failures: int, dispatch: DispatchConfig, jitter: float) -> float:
    """Return how long to wait after the n-th failure (1 is the first), in seconds.

    `jitter` in 0..1 adds up to a tenth, so that issues that failed together do not return together.
    """
    longest = dispatch.max_backoff
    try:
        delay = dispatch.error_cooldown * dispatch.backoff_factor ** (failures - 1)
    except OverflowError:
        delay = longest
    return min(delay, longest) * (1 + jitter / 10)


class NextStep(StrEnum):
    """What follows a run's end."""

    IGNORE = "ignore"
    RELEASE = "release"
    FINISH = "finish"
    ANOTHER_ROUND = "another-round"
    DEFER = "defer"
    RESUME = "resume"
    FAIL = "fail"


class Ending(Data, frozen=True, kw_only=True):
    """Everything the decision on a run's end depends on."""

    exit: Exit
    began: bool = True
    """Whether a process of it ever existed, as far as anyone knows."""
    stopping: bool = False
    complete: bool = False
    stalled: bool = False
    later_stage: bool = False
    resumes: int = 0
    max_resumes: int = 0


def classify_exit(ending: Ending) -> RunResult:
    """Return what a run amounted to."""
    if ending.stopping or ending.exit.stopped:
        return RunResult.STOPPED
    if ending.stalled:
        return RunResult.STALLED
    match ending.exit.status:
        case 0:
            return RunResult.SUCCEEDED
        case 10 if ending.later_stage:
            return RunResult.CHANGES
        case 75:
            return RunResult.DEFERRED
        case None:
            return RunResult.LOST
        case _:
            return RunResult.CRASHED


def decide_exit(ending: Ending) -> NextStep:
    """Return what follows a run's end; the order of the questions is the rule.

    Stopping: nothing. The issue complete elsewhere: release. Exit 0: finished. Exit 10 of a later
    stage: another round. Exit 75: not now. Never began, as its daemon died, or stopped without a record:
    start it, whatever the budget. Else resume while the budget lasts, else fail.
    """
    if ending.stopping:
        return NextStep.IGNORE
    if ending.complete:
        return NextStep.RELEASE
    match classify_exit(ending):
        case RunResult.SUCCEEDED:
            return NextStep.FINISH
        case RunResult.CHANGES:
            return NextStep.ANOTHER_ROUND
        case RunResult.DEFERRED:
            return NextStep.DEFER
        case RunResult.STOPPED:
            return NextStep.RESUME
        case RunResult.LOST if not ending.began:
            return NextStep.RESUME
        case _:
            spent = ending.resumes >= ending.max_resumes
            return NextStep.FAIL if spent else NextStep.RESUME
