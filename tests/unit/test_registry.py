"""The fold over facts: one picture, however it is come by."""

from functools import partial

import msgspec
import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from factoryd.core.errors import IllegalFact
from factoryd.core.events import (
    AttemptResult,
    ConfigurationLoaded,
    IssueCancelled,
    IssueDone,
    IssueFrozen,
    IssueLeftReady,
    IssueParked,
    IssueReopened,
    IssueRerouted,
    IssueStopping,
    IssueThawed,
    OutcomeWithheld,
    OutcomeWritten,
    Recorded,
    RunResult,
    StageStarted,
)
from factoryd.core.model import AgentState, IssueState, StopPolicy
from factoryd.core.records import StopRule
from factoryd.core.registry import Draft, Registry
from tests.unit.samples import (
    AGENT,
    KEY,
    attempt_ended,
    attempt_started,
    claimed,
    handoff_cleared,
    handoff_made,
    issue,
    one_of_each,
    run_emptied,
    run_exited,
    run_started,
    run_starting,
)


def fold(registry, *facts, at=1.0):
    draft = Draft(registry)
    entries = [draft.add(fact, at) for fact in facts]
    registry.accept(draft, registry.seq + len(facts))
    return entries


def running(*facts):
    registry = Registry()
    fold(registry, claimed(), attempt_started(), *facts)
    return registry


def known(registry):
    record = registry.issue(KEY)
    assert record is not None
    return record


# ---------------------------------------------------------------------------------------- frozen


def test_what_ends_an_issue_thaws_it():
    for ends in (
        [IssueStopping(issue=KEY, reason="asked")],
        [attempt_ended(), IssueDone(issue=KEY)],
        [attempt_ended(), IssueParked(issue=KEY, reason="spent")],
    ):
        registry = running(IssueFrozen(issue=KEY, reason="lunch"))
        assert (known(registry).frozen, known(registry).frozen_reason) == (True, "lunch")
        fold(registry, *ends)
        assert (known(registry).frozen, known(registry).frozen_reason) == (False, None)


def test_no_run_of_a_frozen_issue_begins():
    registry = running(IssueFrozen(issue=KEY, reason="lunch"))
    with pytest.raises(IllegalFact, match="cannot start while the issue is frozen"):
        fold(registry, run_starting())
    fold(registry, IssueThawed(issue=KEY), run_starting())


# ---------------------------------------------------------------------------------------- replay

KEYS = ("AR-1", "ar-2")


def choices(key: str):
    runs = [f"{key}-a", f"{key}-b"]
    return [
        *one_of_each(key)[2:],
        StageStarted(issue=key, round=2, stage=1),
        attempt_started(key, 2),
        attempt_ended(key, 1, AttemptResult.DEFERRED, not_before=4.0),
        attempt_ended(key, 2, AttemptResult.FAILED, not_before=4.0),
        *[
            fact
            for run in runs
            for fact in (
                run_starting(run, key, f"{key}-{run[-1]}-agent", resumes=1),
                run_started(run, key),
                run_exited(run, key),
                run_emptied(run, key, RunResult.CRASHED),
                handoff_made(run, key),
                handoff_cleared(run, key),
            )
        ],
    ]


@st.composite
def histories(draw):
    """Return legal facts, in order, of a random life."""
    registry, facts = Registry(), list[Recorded]()
    for fact in draw(st.lists(st.sampled_from([f for k in KEYS for f in choices(k)]), max_size=80)):
        draft = Draft(registry)
        try:
            draft.add(fact, float(len(facts)))
        except IllegalFact:
            continue
        registry.accept(draft, len(facts) + 1)
        facts.append(Recorded(seq=len(facts) + 1, at=float(len(facts)), fact=fact))
    return facts


@settings(deadline=None)
@given(facts=histories(), data=st.data())
def test_a_snapshot_after_any_fact_and_the_facts_since_give_the_live_state(facts, data):
    live = Registry.replay(None, facts)
    cut = data.draw(st.integers(0, len(facts)))
    half = Registry.replay(None, facts[:cut])
    again = Registry.replay(half.snapshot(), facts[cut:])
    assert again.snapshot() == live.snapshot()
    assert again.seq == live.seq == len(facts)


@settings(deadline=None)
@given(facts=histories())
def test_facts_of_a_group_give_the_same_state_as_facts_one_by_one(facts):
    grouped = Registry()
    draft = Draft(grouped)
    for recorded in facts:
        fork = draft.fork()
        fork.add(recorded.fact, recorded.at)
        draft = fork
    assert grouped.snapshot() == Registry().snapshot()
    grouped.accept(draft, len(facts))
    assert grouped.snapshot() == Registry.replay(None, facts).snapshot()


@settings(deadline=None)
@given(facts=histories(), data=st.data())
def test_promise_4_an_illegal_fact_anywhere_in_a_batch_changes_nothing(facts, data):
    registry = Registry.replay(None, facts)
    before = registry.snapshot()
    batch = data.draw(st.lists(st.sampled_from(choices("AR-1")), min_size=1, max_size=6))
    draft = Draft(registry)
    trial = draft.fork()
    try:
        for fact in batch:
            trial.add(fact, 99.0)
    except IllegalFact:
        registry.accept(draft, registry.seq)
    assert registry.snapshot() == before


def test_a_clean_restart_knows_the_number_of_its_last_fact():
    registry = running()
    assert Registry.replay(registry.snapshot(), []).seq == registry.seq == 2


# ----------------------------------------------------------------------------------------- names


def test_an_attempt_holds_the_issue_and_a_run_holds_its_agents_name():
    registry = Registry()
    entries = fold(
        registry,
        claimed(),
        attempt_started(),
        run_starting(),
        run_started(),
        run_exited(),
        run_emptied(),
        attempt_ended(),
    )
    assert [(entry.takes, entry.frees) for entry in entries] == [
        (None, None),
        ("attempt:ar-1", None),
        (f"agent:{AGENT}", None),
        (None, None),
        (None, None),
        (None, f"agent:{AGENT}"),
        (None, "attempt:ar-1"),
    ]


def test_a_handoff_keeps_its_agents_name_until_it_is_cleared_by_proof():
    registry = running(run_starting())
    (made,) = fold(registry, handoff_made())
    assert made.frees is None
    fold(registry, attempt_ended(not_before=2.0), attempt_started(attempt=2))
    with pytest.raises(IllegalFact, match="not proven empty yet"):
        fold(registry, run_starting("second"))
    (cleared,) = fold(registry, handoff_cleared())
    assert cleared.frees == f"agent:{AGENT}"
    fold(registry, run_starting("second"))


# --------------------------------------------------------------------------------------- details


def test_keys_are_one_issue_in_any_spelling():
    registry = running()
    with pytest.raises(IllegalFact):
        fold(registry, claimed("ar-1"))
    assert registry.issue("aR-1") is registry.issue("AR-1") is not None


@pytest.mark.parametrize(
    "fact",
    [
        attempt_started(attempt=1),
        attempt_started(attempt=3),
        attempt_ended(attempt=2),
        run_started("other"),
        run_emptied("other"),
        handoff_cleared(),
        IssueDone(issue=KEY),
        IssueParked(issue=KEY, reason="no"),
        IssueCancelled(issue=KEY, reason="no"),
        run_starting("second"),
        attempt_ended(),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_a_fact_that_contradicts_the_running_attempt_is_refused(fact):
    registry = running(run_starting())
    before = registry.snapshot()
    with pytest.raises(IllegalFact):
        fold(registry, fact)
    assert registry.snapshot() == before


def test_an_issue_does_not_end_while_a_tree_of_it_is_live():
    registry = running(run_starting(), IssueStopping(issue=KEY, reason="asked"))
    with pytest.raises(IllegalFact):
        fold(registry, IssueCancelled(issue=KEY, reason="asked"))
    with pytest.raises(IllegalFact):
        fold(registry, attempt_ended())
    fold(registry, run_emptied(result=RunResult.STOPPED))
    ended = attempt_ended(result=AttemptResult.CANCELLED)
    fold(registry, ended, IssueCancelled(issue=KEY, reason="asked"))
    assert known(registry).state is IssueState.CANCELLED


def test_work_that_has_begun_is_not_triaged_anew():
    anew = IssueRerouted(issue=KEY, work=issue(), repo="other", recipe="pair", reason="changed")
    registry = Registry()
    fold(registry, claimed(), anew)
    assert (known(registry).repo, known(registry).reason) == ("other", "changed")
    fold(registry, attempt_started(), attempt_ended())
    with pytest.raises(IllegalFact, match="an attempt at it has begun"):
        fold(registry, anew)


def test_a_deferred_attempt_does_not_count():
    registry = running()
    fold(registry, attempt_ended(result=AttemptResult.DEFERRED, not_before=5.0))
    assert (known(registry).attempts_used, known(registry).deferrals) == (0, 1)
    fold(registry, attempt_started(attempt=1))
    fold(registry, attempt_ended(not_before=9.0))
    assert (known(registry).attempts_used, known(registry).deferrals) == (1, 1)


def test_a_reopened_issue_has_all_its_attempts_again():
    registry = running()
    fold(registry, IssueLeftReady(issue=KEY), attempt_ended())
    fold(registry, IssueParked(issue=KEY, reason="failed"))
    fold(registry, OutcomeWritten(issue=KEY, outcome=IssueState.PARKED))
    fold(registry, IssueReopened(issue=KEY, reason="it came back"))
    record = known(registry)
    assert (record.state, record.attempts_used, record.left_ready, record.written) == (
        IssueState.READY,
        0,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (run_emptied(), AgentState.SUCCEEDED),
        (run_emptied(result=RunResult.CHANGES), AgentState.SUCCEEDED),
        (run_emptied(result=RunResult.CRASHED), AgentState.FAILED),
        (handoff_made(), AgentState.LEAKED),
    ],
)
def test_a_run_is_live_until_it_is_emptied_or_handed_off(last, state):
    registry = running(run_starting())
    for fact, now in [
        (run_started(), AgentState.RUNNING),
        (run_exited(), AgentState.EXITED),
    ]:
        fold(registry, fact)
        assert known(registry).runs[AGENT].state is now
        assert known(registry).runs[AGENT].live
    fold(registry, last)
    assert known(registry).runs[AGENT].state is state
    assert not known(registry).runs[AGENT].live


def test_a_started_run_and_its_handoff_know_the_inode_of_its_leaf():
    started = replace(run_started(), cgroup_inode=7)
    registry = running(run_starting(), started)
    assert known(registry).runs[AGENT].place == replace(run_starting().place, cgroup_inode=7)
    fold(registry, handoff_made())
    (owed,) = registry.handoffs.values()
    assert owed.place.cgroup_inode == 7


def test_counters_count_and_usage_adds_up():
    registry = running(run_starting(), run_emptied(result=RunResult.CRASHED))
    fold(registry, run_starting("second", resumes=1), handoff_made("second"))
    fold(registry, attempt_ended(not_before=2.0), handoff_cleared("second"))
    fold(registry, attempt_started(attempt=2), run_starting("third"), run_emptied("third"))
    fold(registry, attempt_ended(attempt=2, result=AttemptResult.SUCCEEDED), IssueDone(issue=KEY))
    counters = registry.counters
    assert (counters.dispatched, counters.resumed, counters.failed) == (1, 1, 1)
    assert (counters.reaped, counters.done, counters.parked) == (1, 1, 0)
    assert (known(registry).cpu_s, known(registry).peak_processes) == (1.0, 3)


def test_an_end_that_is_withdrawn_does_not_count():
    registry = Registry()
    fold(registry, claimed(), IssueParked(issue=KEY, reason="failed"))
    assert (registry.counters.done, registry.counters.parked) == (0, 1)
    withdrawn = IssueStopping(issue=KEY, reason="by hand", outcome=IssueState.DONE, withdraws=True)
    fold(registry, withdrawn)
    assert (registry.counters.done, registry.counters.parked) == (0, 0)
    fold(registry, IssueDone(issue=KEY, reason="by hand"))
    fold(registry, OutcomeWritten(issue=KEY, outcome=IssueState.DONE))
    assert (registry.counters.done, registry.counters.parked) == (1, 0)


@pytest.mark.parametrize("written", [OutcomeWritten, partial(OutcomeWithheld, reason="gone")])
def test_an_outcome_is_what_the_issue_has_ended_as_and_told_once(written):
    registry = Registry()
    fold(registry, claimed(), IssueParked(issue=KEY, reason="failed"))
    with pytest.raises(IllegalFact, match="it has not ended as done"):
        fold(registry, written(issue=KEY, outcome=IssueState.DONE))
    fold(registry, written(issue=KEY, outcome=IssueState.PARKED))
    with pytest.raises(IllegalFact, match="is written back already"):
        fold(registry, written(issue=KEY, outcome=IssueState.PARKED))


def test_a_new_handoff_never_drops_an_older_one():
    registry = running(run_starting("one", agent="ar-1-a"), run_starting("two", agent="ar-1-b"))
    fold(registry, handoff_made("one"), handoff_made("two"))
    fold(registry, attempt_ended(not_before=2.0), attempt_started(attempt=2))
    assert list(registry.handoffs) == ["one", "two"]
    assert list(Registry.replay(registry.snapshot(), []).handoffs) == ["one", "two"]
    fold(registry, handoff_cleared("two"))
    assert list(registry.handoffs) == ["one"]


# -------------------------------------------------------------------------------- how to stop


def test_the_way_to_stop_trees_is_that_of_the_newest_daemon_also_after_a_snapshot():
    registry = Registry()
    assert registry.stop_rule is None
    old, new = (StopPolicy(protected_pids=frozenset({pid})) for pid in (7, 8))
    fold(registry, ConfigurationLoaded(stop=old, grace_s=1.0))
    fold(registry, ConfigurationLoaded(stop=new, grace_s=2.5))
    again = Registry.replay(registry.snapshot(), [])
    for one in (registry, again):
        assert one.stop_rule == StopRule(policy=new, grace_s=2.5)


def test_a_snapshot_of_a_time_before_that_was_recorded_is_read():
    stored = msgspec.json.decode(Registry().snapshot())
    del stored["stop_rule"]
    assert Registry.replay(msgspec.json.encode(stored), []).stop_rule is None
