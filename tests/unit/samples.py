"""One small fact of every kind, and what they are made of."""

from factoryd.core.events import (
    AnyFact,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    ConfigurationLoaded,
    DaemonStarted,
    DaemonStopped,
    FactoryPaused,
    FactoryResumed,
    HandoffCleared,
    HandoffMade,
    IssueCancelled,
    IssueClaimed,
    IssueDone,
    IssueEscalated,
    IssueFrozen,
    IssueLeftReady,
    IssueParked,
    IssueReopened,
    IssueRerouted,
    IssueStopping,
    IssueThawed,
    NameCollided,
    OutcomeWithheld,
    OutcomeWritten,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarted,
    RunStarting,
    StageStarted,
)
from factoryd.core.model import (
    Exit,
    Issue,
    IssueState,
    ProcessIdentity,
    Receipt,
    RunId,
    StopPolicy,
    StopReport,
    TreePlace,
)

KEY = "AR-1"
AGENT = "ar-1-impl"
RUN = RunId("ar-1-impl-1")


def issue(key: str = KEY, **fields) -> Issue:
    defaults = {"title": f"Mend {key}", "labels": ("factory",), "source": "fake"}
    return Issue(key=key, **(defaults | fields))


def place(run: str = RUN, key: str = KEY, agent: str = AGENT) -> TreePlace:
    return TreePlace(run=RunId(run), issue=key, agent=agent, directory=f"/fake/runs/{key}/{run}")


def identity(pid: int = 4242) -> ProcessIdentity:
    return ProcessIdentity(pid=pid, start_ticks=7, boot_id="boot")


def claimed(key: str = KEY) -> IssueClaimed:
    return IssueClaimed(issue=key, work=issue(key), repo="demo", recipe="pair")


def attempt_started(key: str = KEY, attempt: int = 1) -> AttemptStarted:
    return AttemptStarted(issue=key, attempt=attempt)


def attempt_ended(
    key: str = KEY,
    attempt: int = 1,
    result: AttemptResult = AttemptResult.FAILED,
    not_before: float | None = None,
) -> AttemptEnded:
    return AttemptEnded(issue=key, attempt=attempt, result=result, not_before=not_before)


def run_starting(
    run: str = RUN, key: str = KEY, agent: str = AGENT, resumes: int = 0
) -> RunStarting:
    where = place(run, key, agent)
    return RunStarting(
        issue=key, run=RunId(run), agent=agent, role="implementer", place=where, resumes=resumes
    )


def run_started(run: str = RUN, key: str = KEY) -> RunStarted:
    return RunStarted(issue=key, run=RunId(run), identity=identity())


def run_exited(run: str = RUN, key: str = KEY, status: int = 0) -> RunExited:
    return RunExited(issue=key, run=RunId(run), exit=Exit(status=status))


def run_emptied(
    run: str = RUN, key: str = KEY, result: RunResult = RunResult.SUCCEEDED
) -> RunEmptied:
    return RunEmptied(
        issue=key,
        run=RunId(run),
        result=result,
        report=StopReport(),
        receipt=Receipt(wall_s=2.0, cpu_s=0.5, peak_processes=3),
    )


def handoff_made(run: str = RUN, key: str = KEY) -> HandoffMade:
    return HandoffMade(
        issue=key,
        run=RunId(run),
        result=RunResult.STOPPED,
        report=StopReport(survivors=1, emptied=False),
        reason="1 process is left: 99 (uninterruptible sleep)",
    )


def handoff_cleared(run: str = RUN, key: str = KEY) -> HandoffCleared:
    return HandoffCleared(issue=key, run=RunId(run), report=StopReport())


def one_of_each(key: str = KEY) -> list[AnyFact]:
    """Return a fact of every kind, all about one issue and one run of it."""
    return [
        DaemonStarted(pid=1, version="1", boot_id="boot"),
        DaemonStopped(clean=True),
        ConfigurationLoaded(stop=StopPolicy(protected_pids=frozenset({7})), grace_s=1.5),
        FactoryPaused(reason="lunch"),
        FactoryResumed(),
        claimed(key),
        IssueRerouted(issue=key, work=issue(key), repo="other", recipe="pair", reason="it changed"),
        IssueEscalated(issue=key, work=issue(key), reason="no route"),
        IssueLeftReady(issue=key),
        IssueReopened(issue=key, reason="it came back"),
        attempt_started(key),
        StageStarted(issue=key, round=1, stage=0),
        run_starting(key=key),
        NameCollided(issue=key, agent=AGENT, holder=RunId("old"), reason="its name is taken"),
        run_started(key=key),
        run_exited(key=key),
        run_emptied(key=key),
        handoff_made(key=key),
        handoff_cleared(key=key),
        attempt_ended(key),
        IssueFrozen(issue=key, reason="asked"),
        IssueThawed(issue=key),
        IssueStopping(issue=key, reason="asked"),
        IssueDone(issue=key),
        IssueParked(issue=key, reason="failed"),
        IssueCancelled(issue=key, reason="asked"),
        OutcomeWritten(issue=key, outcome=IssueState.DONE),
        OutcomeWithheld(issue=key, outcome=IssueState.DONE, reason="out of scope: ..."),
    ]
