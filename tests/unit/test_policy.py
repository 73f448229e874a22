"""The rules of dispatch, exit and retry."""

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from factoryd.core.config import DispatchConfig
from factoryd.core.events import RunResult
from factoryd.core.model import Exit, IssueState
from factoryd.core.policy import (
    Dispatch,
    Ending,
    Escalate,
    NextStep,
    Reopen,
    Skip,
    block_reason,
    classify_exit,
    cooldown_s,
    decide,
    decide_exit,
    in_order,
)
from factoryd.core.records import IssueRecord
from factoryd.core.registry import Draft, Registry
from tests.unit.configs import SMALL, parse
from tests.unit.samples import attempt_ended, attempt_started, claimed, issue

CONFIG = parse(SMALL)
S = IssueState


def record(state, **fields):
    return IssueRecord(issue=issue(), state=state, since=0.0, **fields)


# ------------------------------------------------------------------------------------ dispatch


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (None, None),
        (record(S.READY), None),
        (record(S.ESCALATED, reason="no route"), None),
        (record(S.DONE), "dispatch already terminal"),
        (record(S.PARKED, attempts_used=2), "dispatch already terminal"),
        (record(S.CANCELLED), "dispatch already terminal"),
        (record(S.CLAIMED), "dispatch already in-flight"),
        (record(S.RUNNING), "dispatch already in-flight"),
        (record(S.STOPPING), "dispatch already in-flight"),
        (record(S.RUNNING, not_before=11.0, attempts_used=9), "dispatch already in-flight"),
        (record(S.COOLDOWN, not_before=11.0, attempts_used=1), "dispatch backoff active"),
        (record(S.COOLDOWN, not_before=11.0, attempts_used=2), "dispatch backoff active"),
        (record(S.COOLDOWN, not_before=10.0, attempts_used=2), "dispatch retry limit reached"),
        (record(S.COOLDOWN, not_before=10.0, attempts_used=1), None),
    ],
)
def test_each_block_has_its_reason_and_its_place_in_the_order(known, reason):
    assert block_reason(known, 10.0, 2) == reason


def test_a_second_attempt_is_allowed_exactly_at_the_end_of_its_cooldown():
    registry = Registry()

    def happens(*facts, at):
        draft = Draft(registry)
        for fact in facts:
            draft.add(fact, at)
        registry.accept(draft, registry.seq + len(facts))

    def blocked(at):
        return block_reason(registry.issue("AR-1"), at, 2)

    dispatch = DispatchConfig(max_attempts=2, error_cooldown=1.0)
    assert blocked(at=0.0) is None
    happens(claimed(), attempt_started(), at=0.0)
    assert blocked(at=0.0) == "dispatch already in-flight"
    happens(attempt_ended(not_before=cooldown_s(1, dispatch, 0.0)), at=0.0)
    assert blocked(at=0.999) == "dispatch backoff active"
    assert blocked(at=1.0) is None
    happens(attempt_started(attempt=2), at=1.0)
    happens(attempt_ended(attempt=2, not_before=3.0), at=2.0)
    assert blocked(at=2.999) == "dispatch backoff active"
    assert blocked(at=3.0) == "dispatch retry limit reached"


def test_a_ready_issue_that_passes_everything_is_dispatched_along_its_route():
    assert decide(issue(), None, CONFIG, 0.0) == Dispatch(issue=issue(), repo="demo", recipe="pair")
    assert isinstance(decide(issue(), record(S.READY), CONFIG, 0.0), Dispatch)


def test_an_issue_in_cooldown_is_its_own_scopes_business_even_when_the_wait_is_over():
    known = record(S.COOLDOWN, not_before=10.0, attempts_used=1)
    skipped = decide(issue(), known, CONFIG, 10.0)
    assert skipped == Skip(issue=issue(), reason="dispatch already in-flight")


def test_a_block_is_told_before_the_gate_and_the_gate_before_the_route():
    outside = issue(labels=(), repo="nope")
    known = decide(outside, record(S.DONE), CONFIG, 0.0)
    assert known == Skip(issue=outside, reason="dispatch already terminal")
    refused = decide(outside, None, CONFIG, 0.0)
    assert isinstance(refused, Skip)
    assert refused.reason.startswith("out of scope: ")
    assert isinstance(decide(issue(repo="nope"), None, CONFIG, 0.0), Escalate)


def test_an_issue_is_escalated_once_per_reason_and_dispatched_once_a_route_leads_somewhere():
    lost = issue(repo="nope")
    first = decide(lost, None, CONFIG, 0.0)
    assert isinstance(first, Escalate)
    known = record(S.ESCALATED, reason=first.reason)
    assert decide(lost, known, CONFIG, 1.0) == Skip(issue=lost, reason=first.reason)
    assert isinstance(decide(issue(repo="other"), known, CONFIG, 2.0), Escalate)
    assert isinstance(decide(issue(), known, CONFIG, 3.0), Dispatch)


@pytest.mark.parametrize("state", [S.DONE, S.PARKED, S.CANCELLED])
def test_an_ended_issue_is_reopened_only_when_it_left_ready_and_its_outcome_is_written(state):
    back = record(state, left_ready=True, written=True)
    assert decide(issue(), back, CONFIG, 0.0) == Reopen(issue=issue())
    for other in (
        record(state, left_ready=False, written=True),
        record(state, left_ready=True, written=False),
    ):
        skipped = decide(issue(), other, CONFIG, 0.0)
        assert skipped == Skip(issue=issue(), reason="dispatch already terminal")


every_record = st.builds(
    record,
    st.sampled_from(list(S)),
    attempts_used=st.integers(0, 4),
    not_before=st.none() | st.floats(0, 20),
    left_ready=st.booleans(),
    written=st.booleans(),
    reason=st.none() | st.just("no route"),
)


@settings(deadline=None)
@given(
    known=st.none() | every_record,
    shown=st.builds(
        issue,
        labels=st.sampled_from([(), ("factory",), ("other",)]),
        repo=st.sampled_from([None, "demo", "nope"]),
    ),
    now=st.floats(0, 20),
)
def test_promise_10_every_refusal_and_every_skip_has_a_reason(known, shown, now):
    match decide(shown, known, CONFIG, now):
        case Skip(reason=reason) | Escalate(reason=reason):
            assert reason.strip()
        case Dispatch():
            assert known is None or known.state in {S.READY, S.ESCALATED}
        case Reopen():
            assert known is not None
            assert known.state in {S.DONE, S.PARKED, S.CANCELLED}


def test_dispatch_goes_by_priority_then_age_then_key():
    waiting = [
        issue("C", since=1.0),
        issue("E", priority=2, since=0.0),
        issue("B", since=2.0),
        issue("D", priority=1, since=9.0),
        issue("A", since=2.0),
        issue("F", priority=0, since=99.0),
    ]
    for shuffled in itertools.islice(itertools.permutations(waiting), 0, None, 37):
        assert [one.key for one in in_order(shuffled)] == ["F", "D", "E", "C", "A", "B"]


# ------------------------------------------------------------------------------------ cooldown


def test_each_further_cooldown_is_longer_up_to_the_longest():
    dispatch = DispatchConfig(error_cooldown=60.0, backoff_factor=2.0, max_backoff=300.0)
    assert [cooldown_s(n, dispatch, 0.0) for n in (1, 2, 3, 4, 5)] == [60, 120, 240, 300, 300]


def test_a_cooldown_after_very_many_failures_is_the_longest_and_no_error():
    dispatch = DispatchConfig(error_cooldown=60.0, backoff_factor=100.0, max_backoff=300.0)
    assert cooldown_s(100_000, dispatch, 0.0) == 300.0


@settings(deadline=None)
@given(n=st.integers(1, 50), jitter=st.floats(0, 1))
def test_jitter_only_lengthens_a_cooldown_by_a_tenth_at_most(n, jitter):
    plain = cooldown_s(n, CONFIG.dispatch, 0.0)
    assert plain <= cooldown_s(n, CONFIG.dispatch, jitter) <= plain * 1.1 + 1e-9


# ---------------------------------------------------------------------------------------- exits


def ending(status, **fields):
    return Ending(exit=Exit(status=status), max_resumes=3, **fields)


@pytest.mark.parametrize(
    ("what", "step", "result"),
    [
        (ending(0), NextStep.FINISH, RunResult.SUCCEEDED),
        (ending(10, later_stage=True), NextStep.ANOTHER_ROUND, RunResult.CHANGES),
        (ending(10), NextStep.RESUME, RunResult.CRASHED),
        (ending(75), NextStep.DEFER, RunResult.DEFERRED),
        (ending(75, resumes=3), NextStep.DEFER, RunResult.DEFERRED),
        (ending(1), NextStep.RESUME, RunResult.CRASHED),
        (ending(137), NextStep.RESUME, RunResult.CRASHED),
        (ending(1, resumes=2), NextStep.RESUME, RunResult.CRASHED),
        (ending(1, resumes=3), NextStep.FAIL, RunResult.CRASHED),
        (ending(1, resumes=4), NextStep.FAIL, RunResult.CRASHED),
        (ending(None), NextStep.RESUME, RunResult.LOST),
        (ending(None, resumes=3), NextStep.FAIL, RunResult.LOST),
        (ending(None, resumes=3, began=False), NextStep.RESUME, RunResult.LOST),
        (ending(0, resumes=3, began=False), NextStep.FINISH, RunResult.SUCCEEDED),
        (ending(1, resumes=3, began=False), NextStep.FAIL, RunResult.CRASHED),
        (ending(None, stalled=True), NextStep.RESUME, RunResult.STALLED),
        (ending(None, stalled=True, resumes=3), NextStep.FAIL, RunResult.STALLED),
    ],
)
def test_an_exit_leads_to_its_step(what, step, result):
    assert (decide_exit(what), classify_exit(what)) == (step, result)


STATUSES = [0, 1, 10, 75, 137, None]


@pytest.mark.parametrize("status", STATUSES)
def test_stopping_comes_before_everything_else(status):
    for complete, stalled, later in itertools.product([False, True], repeat=3):
        what = ending(status, stopping=True, complete=complete, stalled=stalled, later_stage=later)
        assert decide_exit(what) is NextStep.IGNORE
        assert classify_exit(what) is RunResult.STOPPED


@pytest.mark.parametrize("status", STATUSES)
def test_an_issue_that_is_complete_already_is_released_whatever_the_exit(status):
    assert decide_exit(ending(status, complete=True)) is NextStep.RELEASE
