"""The table of an issue's life, pair by pair."""

import pytest
from msgspec.structs import replace

from factoryd.core.errors import IllegalFact
from factoryd.core.events import (
    KINDS,
    AttemptStarted,
    IssueStopping,
    RunStarting,
    kind_of,
)
from factoryd.core.lifecycle import IN_FLIGHT, MOVES, TERMINAL, next_state
from factoryd.core.model import IssueState as S
from factoryd.core.records import IssueRecord
from factoryd.core.registry import Draft, Registry
from tests.unit.samples import KEY, attempt_ended, issue, one_of_each

EVERYWHERE: dict[S | None, S] = {state: state for state in S}

LIFE: dict[str, dict[S | None, S]] = {
    "daemon-started": {},
    "daemon-stopped": {},
    "configuration-loaded": {},
    "issue-claimed": {None: S.CLAIMED, S.READY: S.CLAIMED, S.ESCALATED: S.CLAIMED},
    "issue-rerouted": {S.CLAIMED: S.CLAIMED},
    "issue-escalated": {None: S.ESCALATED, S.READY: S.ESCALATED, S.ESCALATED: S.ESCALATED},
    "issue-left-ready": EVERYWHERE,
    "issue-reopened": dict.fromkeys([S.DONE, S.PARKED, S.CANCELLED, S.ESCALATED], S.READY),
    "attempt-started": {S.CLAIMED: S.RUNNING, S.COOLDOWN: S.RUNNING},
    "stage-started": {S.RUNNING: S.RUNNING},
    "run-starting": {S.RUNNING: S.RUNNING},
    "name-collided": {S.RUNNING: S.RUNNING, S.STOPPING: S.STOPPING},
    "run-started": {S.RUNNING: S.RUNNING, S.STOPPING: S.STOPPING},
    "run-exited": {S.RUNNING: S.RUNNING, S.STOPPING: S.STOPPING},
    "run-emptied": {S.RUNNING: S.RUNNING, S.STOPPING: S.STOPPING},
    "handoff-made": {S.RUNNING: S.RUNNING, S.STOPPING: S.STOPPING},
    "handoff-cleared": EVERYWHERE,
    "attempt-ended": {S.RUNNING: S.CLAIMED, S.STOPPING: S.STOPPING},
    "issue-frozen": {S.CLAIMED: S.CLAIMED, S.RUNNING: S.RUNNING, S.COOLDOWN: S.COOLDOWN},
    "factory-paused": {},
    "factory-resumed": {},
    "issue-thawed": {S.CLAIMED: S.CLAIMED, S.RUNNING: S.RUNNING, S.COOLDOWN: S.COOLDOWN},
    "issue-stopping": {
        S.CLAIMED: S.STOPPING,
        S.RUNNING: S.STOPPING,
        S.COOLDOWN: S.STOPPING,
        S.DONE: S.STOPPING,
        S.PARKED: S.STOPPING,
    },
    "issue-done": {S.CLAIMED: S.DONE, S.STOPPING: S.DONE},
    "issue-parked": {S.CLAIMED: S.PARKED, S.COOLDOWN: S.PARKED, S.STOPPING: S.PARKED},
    "issue-cancelled": {S.STOPPING: S.CANCELLED},
    "outcome-written": {S.DONE: S.DONE, S.PARKED: S.PARKED, S.CANCELLED: S.CANCELLED},
    "outcome-withheld": {S.DONE: S.DONE, S.PARKED: S.PARKED, S.CANCELLED: S.CANCELLED},
}
"""What users rely on, written down once more: which fact may happen when, and where it leads."""

PAIRS = [(state, fact) for state in [None, *S] for fact in one_of_each()]


def test_every_kind_of_fact_is_in_the_table():
    assert set(MOVES) == set(KINDS)
    assert {kind_of(kind) for kind in KINDS} == set(LIFE)
    assert {type(fact) for fact in one_of_each()} == set(KINDS)


def test_every_issue_state_is_ended_or_in_flight_or_waits_for_a_source():
    assert frozenset(S) == TERMINAL | IN_FLIGHT | {S.READY, S.ESCALATED}
    assert not TERMINAL & IN_FLIGHT


@pytest.mark.parametrize(
    ("state", "fact"), PAIRS, ids=[f"{state or 'unknown'}-{kind_of(fact)}" for state, fact in PAIRS]
)
def test_a_fact_leads_where_the_table_says_or_is_refused_and_changes_nothing(state, fact):
    moves = LIFE[kind_of(fact)]
    if isinstance(fact, IssueStopping):
        fact = replace(fact, withdraws=state in TERMINAL)
    if state in moves:
        assert next_state(state, fact) is moves[state]
        return
    with pytest.raises(IllegalFact, match="cannot happen while it is"):
        next_state(state, fact)
    if not fact.issue:  # the daemon's own are in no issue's table
        return
    registry = Registry()
    if state is not None:
        registry.issues[KEY.casefold()] = IssueRecord(issue=issue(), state=state, since=1.0)
    before = registry.snapshot()
    draft = Draft(registry)
    with pytest.raises(IllegalFact):
        draft.add(fact, 2.0)
    registry.accept(draft, 0)
    assert registry.snapshot() == before


def test_a_failed_attempt_with_a_moment_to_wait_for_leads_to_cooldown():
    assert next_state(S.RUNNING, attempt_ended(not_before=5.0)) is S.COOLDOWN
    assert next_state(S.STOPPING, attempt_ended(not_before=5.0)) is S.STOPPING


def test_a_stop_that_comes_after_the_end_is_refused_unless_it_withdraws_that_end():
    late = IssueStopping(issue=KEY, reason="killed")
    meant = IssueStopping(issue=KEY, reason="killed", withdraws=True)
    for state in (S.DONE, S.PARKED):
        assert next_state(state, meant) is S.STOPPING
        with pytest.raises(IllegalFact, match="came late"):
            next_state(state, late)
    with pytest.raises(IllegalFact):
        next_state(S.RUNNING, meant)


def test_no_ended_issue_begins_again_without_being_reopened():
    for state in TERMINAL:
        leading_out = {
            kind_of(kind) for kind, moves in MOVES.items() if moves.get(state, state) is not state
        }
        # Stopping is for one whose outcome is not written: it ends anew, and begins nothing.
        assert leading_out - {"issue-stopping"} == {"issue-reopened"}
    assert S.STOPPING not in MOVES[AttemptStarted]
    assert S.STOPPING not in MOVES[RunStarting]
