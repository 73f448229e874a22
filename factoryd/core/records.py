"""What the fold over facts remembers: records of issues, runs and handoffs."""

import msgspec

from factoryd.core.events import RunResult
from factoryd.core.model import (
    AgentState,
    Data,
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


class RunRecord(Data, frozen=True, kw_only=True):
    """What is known of an agent's newest run."""

    run: RunId
    agent: str
    role: str
    place: TreePlace
    resumes: int
    round: int
    stage: int
    since: float
    session: str | None = None
    state: AgentState = AgentState.STARTING
    identity: ProcessIdentity | None = None
    exit: Exit | None = None
    result: RunResult | None = None
    reason: str | None = None
    report: StopReport | None = None
    receipt: Receipt | None = None

    @property
    def live(self) -> bool:
        """Say whether its scope is open: nobody has proven it empty or handed it off."""
        return self.result is None


class IssueRecord(Data, frozen=True, kw_only=True):
    """What is known of an issue: its state, its present attempt and the agents of that."""

    issue: Issue
    state: IssueState
    since: float
    repo: str = ""
    recipe: str = ""
    attempt: int = 0
    attempt_open: bool = False
    attempt_since: float = 0.0
    attempts_used: int = 0
    deferrals: int = 0
    round: int = 0
    stage: int = 0
    not_before: float | None = None
    reason: str | None = None
    frozen: bool = False
    """Nothing of it starts or goes on until it is thawed; an ended issue is not frozen."""
    frozen_reason: str | None = None
    ends_as: IssueState = IssueState.CANCELLED
    """What an issue that is being stopped is to end as."""
    left_ready: bool = False
    written: bool = False
    runs: dict[str, RunRecord] = msgspec.field(default_factory=dict[str, RunRecord])
    collisions: dict[str, RunId] = msgspec.field(default_factory=dict[str, RunId])
    """Agents that could not start, each with the run that had its name."""
    cpu_s: float = 0.0
    peak_processes: int = 0

    @property
    def live_runs(self) -> tuple[RunRecord, ...]:
        """Return the runs whose trees are this issue's to empty."""
        return tuple(run for run in self.runs.values() if run.live)

    def session_of(self, agent: str) -> str | None:
        """Return the session of an agent's newest run in the present stage, to be resumed."""
        last = self.runs.get(agent)
        here = last is not None and (last.round, last.stage) == (self.round, self.stage)
        return last.session if last is not None and here else None


class HandoffRecord(Data, frozen=True, kw_only=True):
    """A tree owed to the reaper."""

    place: TreePlace
    identity: ProcessIdentity | None
    reason: str
    since: float


class Counters(Data, frozen=True, kw_only=True):
    """How often things happened, over the life of the ledger; an end that is withdrawn, not at all."""

    dispatched: int = 0
    done: int = 0
    failed: int = 0
    parked: int = 0
    resumed: int = 0
    name_collisions: int = 0
    reaped: int = 0


class StopRule(Data, frozen=True, kw_only=True):
    """How trees are stopped, and the grace they have (seconds)."""

    policy: StopPolicy
    grace_s: float


class Snapshot(Data, frozen=True, kw_only=True):
    """A registry as stored, so that a start need not replay everything."""

    seq: int = 0
    issues: dict[str, IssueRecord]
    handoffs: dict[str, HandoffRecord]
    counters: Counters
    stop_rule: StopRule | None = None
    paused: str | None = None


def same_issue(key: str) -> str:
    """Return the form under which keys are compared: `ar-1` and `AR-1` are one issue."""
    return key.casefold()
