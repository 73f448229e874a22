"""The rules of dispatch, exit and retry, as pure functions."""

from collections.abc import Callable, Iterable
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

Blocks = Callable[[IssueRecord, float, int], bool]
"""Whether an issue is kept from being dispatched at a moment, given how many attempts it may have."""

BLOCKS: tuple[tuple[str, str, Blocks], ...] = (
    (
        TERMINAL_BLOCK,
        "its work here has ended: it is done, parked or cancelled",
        lambda record, _now, _most: record.state in TERMINAL,
    ),
    (
        IN_FLIGHT_BLOCK,
        "it is claimed, and its own scope leads it",
        lambda record, _now, _most: record.state in IN_FLIGHT - {IssueState.COOLDOWN},
    ),
    (
        BACKOFF_BLOCK,
        "it cools down: over exactly at the end of that, when its own scope goes on",
        lambda record, now, _most: record.not_before is not None and now < record.not_before,
    ),
    (
        LIMIT_BLOCK,
        "it has used up its attempts",
        lambda record, _now, most: record.attempts_used >= most,
    ),
)
"""Why an issue that the ledger knows may not be dispatched, and when: the first that holds."""

LATER_BLOCKS: tuple[tuple[str, str], ...] = (
    ("out of scope", "the gate, `[safety]`, refuses it; what follows says which line"),
    ("no route", "nothing says where it is to be worked on; it is escalated"),
    (PAUSE_BLOCK, "a person has paused dispatching: nothing begins until it is resumed"),
    (SLOT_BLOCK, "as many issues are in flight as may be; it waits its turn"),
)
"""Why an issue is left alone that `BLOCKS` has nothing against, by how the reason begins, in order."""


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

    The first of `BLOCKS` that holds.
    """
    if record is None:
        return None
    return next((reason for reason, _, holds in BLOCKS if holds(record, now, max_attempts)), None)


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
    """Whether its issue was being ended already when the run ended by itself."""
    stalled: bool = False
    later_stage: bool = False
    resumes: int = 0
    max_resumes: int = 0


Holds = Callable[[Ending], bool]

RESULTS: tuple[tuple[str, Holds, RunResult], ...] = (
    ("we were ending it", lambda e: e.stopping or e.exit.stopped, RunResult.STOPPED),
    ("it showed no sign of life for `stall_after`", lambda e: e.stalled, RunResult.STALLED),
    ("exit 0", lambda e: e.exit.status == 0, RunResult.SUCCEEDED),
    (
        "exit 10 of a later stage",
        lambda e: e.exit.status == 10 and e.later_stage,
        RunResult.CHANGES,
    ),
    ("exit 75", lambda e: e.exit.status == 75, RunResult.DEFERRED),
    ("its exit is unknown", lambda e: e.exit.status is None, RunResult.LOST),
    ("any other exit", lambda _: True, RunResult.CRASHED),
)
"""What a run amounted to, in the order of asking; the last always holds."""


def classify_exit(ending: Ending) -> RunResult:
    """Return what a run amounted to: the first of `RESULTS` that holds."""
    return next(result for _, holds, result in RESULTS if holds(ending))


def _ended_as(*results: RunResult) -> Holds:
    return lambda ending: classify_exit(ending) in results


NEXT_STEPS: tuple[tuple[str, Holds, NextStep], ...] = (
    ("its issue or the daemon is being stopped", lambda e: e.stopping, NextStep.IGNORE),
    ("its issue is complete, or being ended", lambda e: e.complete, NextStep.RELEASE),
    ("it succeeded", _ended_as(RunResult.SUCCEEDED), NextStep.FINISH),
    ("it asks for changes", _ended_as(RunResult.CHANGES), NextStep.ANOTHER_ROUND),
    ("it asks for later", _ended_as(RunResult.DEFERRED), NextStep.DEFER),
    (
        "it was stopped and nobody could record that",
        _ended_as(RunResult.STOPPED),
        NextStep.RESUME,
    ),
    (
        "it never began, as its daemon died",
        lambda e: not e.began and classify_exit(e) is RunResult.LOST,
        NextStep.RESUME,
    ),
    ("its resume budget lasts", lambda e: e.resumes < e.max_resumes, NextStep.RESUME),
    ("else", lambda _: True, NextStep.FAIL),
)
"""What follows a run's end, in the order of asking; the last always holds."""


def decide_exit(ending: Ending) -> NextStep:
    """Return what follows a run's end: the first of `NEXT_STEPS` that holds."""
    return next(step for _, holds, step in NEXT_STEPS if holds(ending))
