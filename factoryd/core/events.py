"""Facts: the immutable events of the ledger, and the only way state changes.

A fact is stored as JSON with its kind as tag. Unknown fields are accepted on reading, so that an
older daemon can read what a newer one wrote.
"""

from enum import StrEnum

import msgspec

from factoryd.core.model import (
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


class AttemptResult(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DEFERRED = "deferred"
    """Not now (exit 75): it does not count, the issue cools down."""
    CANCELLED = "cancelled"


class RunResult(StrEnum):
    """What a run amounted to, decided once its root has ended."""

    SUCCEEDED = "succeeded"
    CHANGES = "changes"
    """A reviewer asks for another round (exit 10)."""
    DEFERRED = "deferred"
    CRASHED = "crashed"
    STALLED = "stalled"
    STOPPED = "stopped"
    """We ended it."""
    LOST = "lost"
    """Nobody can know: it never began, or its exit was seen by no one."""


class Fact(Data, frozen=True, kw_only=True):
    """Base of all facts: each concerns one issue, the daemon's own facts none (``""``)."""

    issue: str = ""


class DaemonStarted(Fact, frozen=True, kw_only=True, tag="daemon-started"):
    """A daemon opened this ledger."""

    pid: int
    version: str
    boot_id: str


class DaemonStopped(Fact, frozen=True, kw_only=True, tag="daemon-stopped"):
    """A daemon closed this ledger in good order; `kept` runs were left to the next one."""

    clean: bool
    kept: int = 0


class ConfigurationLoaded(Fact, frozen=True, kw_only=True, tag="configuration-loaded"):
    """From now on this is how trees are stopped, and what is never signalled.

    It is what a reaper goes by that cannot read the configuration. `grace_s` is in seconds.
    """

    stop: StopPolicy
    grace_s: float


class FactoryPaused(Fact, frozen=True, kw_only=True, tag="factory-paused"):
    """A person asked that nothing new is dispatched; what runs goes on. Lasts over restarts."""

    reason: str


class FactoryResumed(Fact, frozen=True, kw_only=True, tag="factory-resumed"):
    """Dispatching goes on."""


class IssueClaimed(Fact, frozen=True, kw_only=True, tag="issue-claimed"):
    """The issue is ours: kept through attempts, cooldown and waiting. `work` is without body."""

    work: Issue
    repo: str
    recipe: str


class IssueRerouted(Fact, frozen=True, kw_only=True, tag="issue-rerouted"):
    """The issue, or the configuration, changed before anything was started: triaged anew."""

    work: Issue
    repo: str
    recipe: str
    reason: str


class IssueEscalated(Fact, frozen=True, kw_only=True, tag="issue-escalated"):
    """Triage found no way to work on this version of the issue; a person must look."""

    work: Issue
    reason: str


class IssueLeftReady(Fact, frozen=True, kw_only=True, tag="issue-left-ready"):
    """The source no longer lists a claimed or ended issue as ready; if it comes back, it is new."""


class IssueReopened(Fact, frozen=True, kw_only=True, tag="issue-reopened"):
    """An ended issue left ready and came back, or a person wants it again: new work, all attempts."""

    reason: str


class AttemptStarted(Fact, frozen=True, kw_only=True, tag="attempt-started"):
    """Dispatch number `attempt` of the issue begins."""

    attempt: int


class StageStarted(Fact, frozen=True, kw_only=True, tag="stage-started"):
    """The agents of one stage begin together."""

    round: int
    stage: int


class RunStarting(Fact, frozen=True, kw_only=True, tag="run-starting"):
    """A process is about to be started here; committed before it can exist."""

    run: RunId
    agent: str
    role: str
    place: TreePlace
    resumes: int
    session: str | None = None


class NameCollided(Fact, frozen=True, kw_only=True, tag="name-collided"):
    """An agent could not start, as an older run has its name; told once for each such run."""

    agent: str
    holder: RunId
    reason: str


class RunStarted(Fact, frozen=True, kw_only=True, tag="run-started"):
    """The run's root process exists, and so does its leaf, where there are cgroups."""

    run: RunId
    identity: ProcessIdentity
    cgroup_inode: int | None = None


class RunExited(Fact, frozen=True, kw_only=True, tag="run-exited"):
    """The run's root process has ended; others of its tree may still run."""

    run: RunId
    exit: Exit


class RunEmptied(Fact, frozen=True, kw_only=True, tag="run-emptied"):
    """Proven: nothing of the run's tree exists any more."""

    run: RunId
    result: RunResult
    report: StopReport
    receipt: Receipt
    reason: str | None = None


class HandoffMade(Fact, frozen=True, kw_only=True, tag="handoff-made"):
    """The run's scope has ended and its tree is not proven empty; owed to the reaper."""

    run: RunId
    result: RunResult
    report: StopReport
    reason: str
    receipt: Receipt | None = None
    """As of the moment the scope ended; what is left of the tree goes on using."""


class HandoffCleared(Fact, frozen=True, kw_only=True, tag="handoff-cleared"):
    """A handed-off tree is proven empty."""

    run: RunId
    report: StopReport


class AttemptEnded(Fact, frozen=True, kw_only=True, tag="attempt-ended"):
    """The attempt is over and all its trees are emptied or handed off."""

    attempt: int
    result: AttemptResult
    reason: str | None = None
    not_before: float | None = None
    """When the next attempt may begin (Unix seconds); None where there is none to wait for."""


class IssueFrozen(Fact, frozen=True, kw_only=True, tag="issue-frozen"):
    """A person asked for the issue to stand still; its trees are being frozen.

    Nothing of it starts until `issue-thawed`; what ends the issue ends this too.
    """

    reason: str


class IssueThawed(Fact, frozen=True, kw_only=True, tag="issue-thawed"):
    """The issue goes on; its trees are being thawed."""


class IssueStopping(Fact, frozen=True, kw_only=True, tag="issue-stopping"):
    """A person asked for the issue to end, or its source shows that it has; its trees are emptied.

    `outcome` is what it ends as: `done`, where its work was done elsewhere, `parked` or `cancelled`.
    With `withdraws` it had ended, and how is withdrawn before that is written back.
    """

    reason: str
    outcome: IssueState = IssueState.CANCELLED
    withdraws: bool = False


class IssueDone(Fact, frozen=True, kw_only=True, tag="issue-done"):
    """All stages succeeded, or it was done elsewhere; nothing of the issue runs any more."""

    reason: str | None = None


class IssueParked(Fact, frozen=True, kw_only=True, tag="issue-parked"):
    """Given up until the source or a person brings it back."""

    reason: str


class IssueCancelled(Fact, frozen=True, kw_only=True, tag="issue-cancelled"):
    """Ended by a person, or gone from its source; nothing of the issue runs any more."""

    reason: str


class OutcomeWritten(Fact, frozen=True, kw_only=True, tag="outcome-written"):
    """The source shows how the issue ended."""

    outcome: IssueState


class OutcomeWithheld(Fact, frozen=True, kw_only=True, tag="outcome-withheld"):
    """The issue is out of scope by now: how it ended is known here, and its source is left alone."""

    outcome: IssueState
    reason: str


AnyFact = (
    DaemonStarted
    | DaemonStopped
    | ConfigurationLoaded
    | FactoryPaused
    | FactoryResumed
    | IssueClaimed
    | IssueRerouted
    | IssueEscalated
    | IssueLeftReady
    | IssueReopened
    | AttemptStarted
    | StageStarted
    | RunStarting
    | NameCollided
    | RunStarted
    | RunExited
    | RunEmptied
    | HandoffMade
    | HandoffCleared
    | AttemptEnded
    | IssueFrozen
    | IssueThawed
    | IssueStopping
    | IssueDone
    | IssueParked
    | IssueCancelled
    | OutcomeWritten
    | OutcomeWithheld
)

KINDS: tuple[type[Fact], ...] = AnyFact.__args__
"""Every kind of fact, for tables that must be complete."""


def kind_of(fact: AnyFact | type[Fact]) -> str:
    """Return the name a fact is stored and shown under (`run-starting`)."""
    tag = fact.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def run_of(fact: AnyFact) -> RunId | None:
    """Return the run a fact concerns, if it concerns one."""
    match fact:
        case (
            RunStarting()
            | RunStarted()
            | RunExited()
            | RunEmptied()
            | HandoffMade()
            | HandoffCleared()
        ):
            return fact.run
        case _:
            return None


class Entry(Data, frozen=True, kw_only=True):
    """A fact on its way into the store, with the names it takes and frees.

    A name is held by at most one owner; the store refuses an entry that takes a held one. That is
    what makes two live attempts of an issue, or two live runs of an agent, impossible.
    """

    at: float
    fact: AnyFact
    takes: str | None = None
    frees: str | None = None


class Recorded(Data, frozen=True, kw_only=True):
    """A committed fact: its number, its moment (Unix seconds) and itself."""

    seq: int
    at: float
    fact: AnyFact


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)


def encode_fact(fact: AnyFact) -> bytes:
    """Return a fact as the JSON the ledger stores."""
    return _encoder.encode(fact)


def decode_fact(body: bytes | str) -> AnyFact:
    """Return the fact that JSON holds; raise `msgspec.DecodeError` when it holds none."""
    return _decoder.decode(body)
