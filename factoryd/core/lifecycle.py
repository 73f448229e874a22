"""The table of an issue's life: which fact may happen in which state, and what state it leads to.

Everything not in the table is illegal. `None` stands for an issue the ledger does not know.
"""

from factoryd.core.errors import IllegalFact
from factoryd.core.events import (
    AttemptEnded,
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
    RunStarted,
    RunStarting,
    StageStarted,
    kind_of,
)
from factoryd.core.model import IssueState as S

TERMINAL = frozenset({S.DONE, S.PARKED, S.CANCELLED})
"""The issue's work here has ended."""

IN_FLIGHT = frozenset({S.CLAIMED, S.RUNNING, S.COOLDOWN, S.STOPPING})
"""The claim is held: nobody may dispatch the issue again."""

STOPPABLE = IN_FLIGHT - {S.STOPPING}
"""The issue is in flight, and nobody has asked for its end yet."""

Moves = dict[S | None, S]

_STAYS: Moves = {state: state for state in S}
_HELD: Moves = {S.CLAIMED: S.CLAIMED, S.RUNNING: S.RUNNING, S.COOLDOWN: S.COOLDOWN}
_WORKING: Moves = {S.RUNNING: S.RUNNING, S.STOPPING: S.STOPPING}

MOVES: dict[type[Fact], Moves] = {
    DaemonStarted: {},
    DaemonStopped: {},
    ConfigurationLoaded: {},
    FactoryPaused: {},
    FactoryResumed: {},
    IssueClaimed: {None: S.CLAIMED, S.READY: S.CLAIMED, S.ESCALATED: S.CLAIMED},
    IssueRerouted: {S.CLAIMED: S.CLAIMED},
    IssueEscalated: {None: S.ESCALATED, S.READY: S.ESCALATED, S.ESCALATED: S.ESCALATED},
    IssueLeftReady: _STAYS,
    IssueReopened: dict.fromkeys((*TERMINAL, S.ESCALATED), S.READY),
    AttemptStarted: {S.CLAIMED: S.RUNNING, S.COOLDOWN: S.RUNNING},
    StageStarted: {S.RUNNING: S.RUNNING},
    RunStarting: {S.RUNNING: S.RUNNING},
    NameCollided: _WORKING,
    RunStarted: _WORKING,
    RunExited: _WORKING,
    RunEmptied: _WORKING,
    HandoffMade: _WORKING,
    HandoffCleared: _STAYS,
    AttemptEnded: {S.RUNNING: S.CLAIMED, S.STOPPING: S.STOPPING},
    IssueFrozen: _HELD,
    IssueThawed: _HELD,
    IssueStopping: dict.fromkeys((S.CLAIMED, S.RUNNING, S.COOLDOWN, S.DONE, S.PARKED), S.STOPPING),
    IssueDone: {S.CLAIMED: S.DONE, S.STOPPING: S.DONE},
    IssueParked: {S.CLAIMED: S.PARKED, S.COOLDOWN: S.PARKED, S.STOPPING: S.PARKED},
    IssueCancelled: {S.STOPPING: S.CANCELLED},
    OutcomeWritten: {state: state for state in TERMINAL},
    OutcomeWithheld: {state: state for state in TERMINAL},
}


def next_state(state: S | None, fact: Fact) -> S:
    """Return the state after `fact`; raise `IllegalFact` when it may not happen now.

    An attempt that ends with a moment to wait for leads to cooldown instead of claimed. What has ended
    is only stopped by a fact that says so, and to end as something else.
    """
    moves = MOVES[type(fact)]
    if state not in moves:
        was = "unknown" if state is None else state.value
        raise IllegalFact(f"{fact.issue}: {kind_of(type(fact))} cannot happen while it is {was}")
    if isinstance(fact, IssueStopping) and fact.withdraws is not (state in TERMINAL):
        raise IllegalFact(f"{fact.issue}: {kind_of(type(fact))} came late: it is {state}")
    if isinstance(fact, IssueStopping) and fact.outcome not in TERMINAL - {state}:
        raise IllegalFact(f"{fact.issue}: it is {state} and cannot be made {fact.outcome}")
    if isinstance(fact, AttemptEnded) and fact.not_before is not None and state is S.RUNNING:
        return S.COOLDOWN
    return moves[state]
