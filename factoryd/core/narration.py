"""How a fact reads in the journal: its message id, its weight and its sentence."""

import uuid
from enum import StrEnum
from functools import cache

from factoryd.core.events import (
    AnyFact,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    ConfigurationLoaded,
    DaemonStarted,
    DaemonStopped,
    Fact,
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
    kind_of,
)

_NAMESPACE = uuid.UUID("5c9a1d4e-38f2-4b7e-9d57-0a7f5c2e61b3")

FACTS_LOGGER = "factoryd.facts"
"""The logger that facts are told through, so that all of them can be had where that costs nobody."""


class Weight(StrEnum):
    """How much a fact matters to a reader of the journal."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@cache
def message_id(kind: type[Fact]) -> str:
    """Return the MESSAGE_ID of a kind of fact: 32 hex digits, the same for ever (sd-id128(3))."""
    return uuid.uuid5(_NAMESPACE, kind_of(kind)).hex


WEIGHTS: dict[type[Fact], Weight] = {
    HandoffMade: Weight.ERROR,
    IssueEscalated: Weight.WARNING,
    IssueParked: Weight.WARNING,
    NameCollided: Weight.WARNING,
    OutcomeWithheld: Weight.WARNING,
    ConfigurationLoaded: Weight.DEBUG,
    IssueLeftReady: Weight.DEBUG,
    OutcomeWritten: Weight.DEBUG,
    RunStarting: Weight.DEBUG,
    StageStarted: Weight.DEBUG,
}
"""Kinds that are not just worth knowing. A warning is for what a person should look at."""

TROUBLE: dict[type[Fact], frozenset[AttemptResult | RunResult]] = {
    AttemptEnded: frozenset({AttemptResult.FAILED}),
    RunEmptied: frozenset({RunResult.CRASHED, RunResult.STALLED, RunResult.LOST}),
}
"""Results that make a fact of the kind a warning."""


def weight(fact: AnyFact) -> Weight:
    """Return how much a fact matters."""
    match fact:
        case AttemptEnded() | RunEmptied() if fact.result in TROUBLE[type(fact)]:
            return Weight.WARNING
        case _:
            return WEIGHTS.get(type(fact), Weight.INFO)


SENTENCES: dict[type[Fact], str] = {
    DaemonStarted: "started: factoryd {f.version}, pid {f.pid}",
    DaemonStopped: "stopped, clean: {f.clean}, runs left to the next daemon: {f.kept}",
    ConfigurationLoaded: "agents are stopped with {f.stop.signal}, {f.stop.order}, grace {f.grace_s:g} s",
    FactoryPaused: "dispatching is paused{because}",
    FactoryResumed: "dispatching goes on",
    IssueClaimed: "{f.issue}: claimed: {f.work.title}",
    IssueRerouted: "{f.issue}: goes to repo {f.repo}, recipe {f.recipe} now{because}",
    IssueEscalated: "{f.issue}: escalated{because}",
    IssueLeftReady: "{f.issue}: left ready in its source",
    IssueReopened: "{f.issue}: reopened{because}",
    AttemptStarted: "{f.issue}: attempt {f.attempt} started",
    StageStarted: "{f.issue}: round {f.round}, stage {f.stage} started",
    RunStarting: "{f.issue}: starting {f.agent}: run {f.run}",
    NameCollided: "{f.issue}: name taken: {f.agent} by run {f.holder}{because}",
    RunStarted: "{f.issue}: running: run {f.run}, pid {f.identity.pid}",
    RunExited: "{f.issue}: exited with {f.exit.status}: run {f.run}",
    RunEmptied: "{f.issue}: {f.result} and emptied: run {f.run}{because}",
    HandoffMade: "{f.issue}: leaked: run {f.run} could not be emptied{because}",
    HandoffCleared: "{f.issue}: reaped: run {f.run} is proven empty",
    AttemptEnded: "{f.issue}: attempt {f.attempt} {f.result}{because}",
    IssueFrozen: "{f.issue}: frozen{because}",
    IssueThawed: "{f.issue}: thawed",
    IssueStopping: "{f.issue}: stopping{because}",
    IssueDone: "{f.issue}: done{because}",
    IssueParked: "{f.issue}: parked{because}",
    IssueCancelled: "{f.issue}: cancelled{because}",
    OutcomeWritten: "{f.issue}: outcome {f.outcome} written back",
    OutcomeWithheld: "{f.issue}: outcome {f.outcome} not written back{because}",
}
"""What each kind of fact says, outcome first; `because` is its reason, if it has one."""


def sentence(fact: AnyFact) -> str:
    """Return a fact as one line for a person."""
    reason = getattr(fact, "reason", None)
    return SENTENCES[type(fact)].format(f=fact, because=f": {reason}" if reason else "")
