"""What became of issues, told from facts alone."""

from hypothesis import given, strategies as st
from msgspec.structs import replace

from factoryd.core.events import (
    AttemptResult,
    HandoffCleared,
    IssueCancelled,
    IssueDone,
    IssueEscalated,
    IssueParked,
    IssueReopened,
    IssueRerouted,
    IssueStopping,
    OutcomeWithheld,
    OutcomeWritten,
    Recorded,
    RunResult,
    StageStarted,
    kind_of,
)
from factoryd.core.history import recount
from factoryd.core.model import IssueState, StopReport
from tests.unit.samples import (
    attempt_ended,
    attempt_started,
    claimed,
    handoff_made,
    issue,
    one_of_each,
    run_emptied,
    run_exited,
    run_started,
    run_starting,
)

S = IssueState
KEY = "AR-1"
DONE = [IssueDone(issue=KEY), OutcomeWritten(issue=KEY, outcome=S.DONE)]
PARKED = IssueParked(issue=KEY, reason="crashed")


def told(*facts):
    """Return what facts tell that were committed ten seconds apart."""
    return recount(Recorded(seq=n, at=10.0 * n, fact=one) for n, one in enumerate(facts, 1))


def a_run(run="r1", result=RunResult.SUCCEEDED):
    return [run_starting(run), run_started(run), run_exited(run), run_emptied(run, result=result)]


def an_attempt(number=1, result=AttemptResult.SUCCEEDED, run="r1"):
    return [
        attempt_started(attempt=number),
        StageStarted(issue=KEY, round=1, stage=0),
        *a_run(run),
        attempt_ended(attempt=number, result=result),
    ]


def test_an_issue_that_was_done_has_its_attempt_its_run_and_the_receipt():
    (past,) = told(claimed(), *an_attempt(), *DONE)
    assert (past.outcome, past.reason, past.repo, past.recipe) == (S.DONE, None, "demo", "pair")
    assert (past.since, past.ended_at, past.seq) == (10.0, 90.0, 9)
    assert (past.attempts_used, past.rounds, past.cpu_s, past.wall_s) == (1, 1, 0.5, 80.0)
    assert [kind_of(one.fact) for one in past.ending] == ["issue-done", "outcome-written"]
    (attempt,) = past.attempts
    assert (attempt.started_at, attempt.ended_at, attempt.result) == (20.0, 80.0, "succeeded")
    (run,) = attempt.runs
    assert (run.run, run.agent, run.started_at, run.result) == (
        "r1",
        "ar-1-impl",
        40.0,
        "succeeded",
    )
    assert run.exit is not None
    assert run.exit.status == 0
    assert run.receipt is not None
    assert (run.receipt.wall_s, run.receipt.cpu_s, run.receipt.peak_processes) == (2.0, 0.5, 3)


def test_an_issue_that_came_back_is_there_once_for_each_end():
    again = IssueReopened(issue=KEY, reason="it came back")
    first, second = told(
        claimed(),
        *an_attempt(result=AttemptResult.FAILED),
        PARKED,
        again,
        claimed(),
        *an_attempt(run="r2"),
        *DONE,
    )
    assert (first.outcome, first.reason, first.seq) == (S.PARKED, "crashed", 9)
    assert [kind_of(one.fact) for one in first.ending] == ["issue-parked", "issue-reopened"]
    assert (second.outcome, second.reason, second.since) == (S.DONE, None, 110.0)
    assert [[run.run for run in one.attempts[0].runs] for one in (first, second)] == [
        ["r1"],
        ["r2"],
    ]


def test_an_attempt_that_was_put_off_is_told_and_does_not_count():
    deferred = an_attempt(result=AttemptResult.DEFERRED)
    (past,) = told(claimed(), *deferred, *an_attempt(run="r2"), *DONE)
    assert [one.result for one in past.attempts] == ["deferred", "succeeded"]
    assert past.attempts_used == 1
    assert past.cpu_s == 1.0, "but what it used does"


def test_rounds_stages_and_resumes_are_those_in_which_a_run_began():
    (past,) = told(
        claimed(),
        attempt_started(),
        StageStarted(issue=KEY, round=1, stage=1),
        *a_run("r1", RunResult.CHANGES),
        StageStarted(issue=KEY, round=2, stage=0),
        run_starting("r2", resumes=1),
    )
    assert [(one.round, one.stage, one.resumes) for one in past.attempts[0].runs] == [
        (1, 1, 0),
        (2, 0, 1),
    ]
    assert past.rounds == 2


def test_what_goes_on_has_no_outcome_yet():
    (past,) = told(claimed(), attempt_started(), run_starting())
    assert (past.outcome, past.ended_at, past.wall_s, past.seq) == (None, None, None, None)
    assert past.cpu_s is None, "nobody knows yet"
    assert past.attempts[0].result is None
    run = past.attempts[0].runs[0]
    assert (run.exit, run.result, run.receipt, run.report) == (None, None, None, None)


def test_an_end_that_is_withdrawn_is_none():
    stopping = IssueStopping(issue=KEY, reason="enough", withdraws=True)
    (withdrawn,) = told(claimed(), PARKED, stopping)
    assert (withdrawn.outcome, withdrawn.reason, withdrawn.seq) == (None, None, None)
    (past,) = told(claimed(), PARKED, stopping, IssueCancelled(issue=KEY, reason="enough"))
    assert (past.outcome, past.reason, past.seq, past.ended_at) == (S.CANCELLED, "enough", 4, 40.0)
    assert [kind_of(one.fact) for one in past.ending] == [
        "issue-parked",
        "issue-stopping",
        "issue-cancelled",
    ]


def test_an_escalated_issue_ended_without_an_attempt():
    stuck = IssueEscalated(issue=KEY, work=issue(), reason="no route")
    escalated, done = told(stuck, claimed(), *an_attempt(), *DONE)
    assert (escalated.outcome, escalated.reason, escalated.attempts) == (
        S.ESCALATED,
        "no route",
        (),
    )
    assert done.outcome is S.DONE


def test_a_changed_issue_is_told_as_it_was_worked_on():
    changed = IssueRerouted(
        issue=KEY, work=issue(title="New"), repo="other", recipe="solo", reason="it changed"
    )
    withheld = OutcomeWithheld(issue=KEY, outcome=S.PARKED, reason="out of scope")
    (past,) = told(claimed(), changed, PARKED, withheld)
    assert (past.issue.title, past.repo, past.recipe) == ("New", "other", "solo")
    assert past.ending[-1].fact == withheld


def test_what_the_reaper_did_later_belongs_to_the_run_even_after_the_issue_came_back():
    handed = replace(
        handoff_made("r1"),
        report=StopReport(signals=("SIGTERM",), killed=2, survivors=1, emptied=False),
    )
    cleared = HandoffCleared(
        issue=KEY, run=handed.run, report=StopReport(signals=("SIGTERM", "SIGKILL"), killed=1)
    )
    facts = [
        claimed(),
        attempt_started(),
        run_starting("r1"),
        handed,
        attempt_ended(),
        PARKED,
        IssueReopened(issue=KEY, reason="it came back"),
        claimed(),
    ]
    report = told(*facts)[0].attempts[0].runs[0].report
    assert report is not None
    assert (report.survivors, report.emptied) == (1, False)
    first, second = told(*facts, cleared)
    report = first.attempts[0].runs[0].report
    assert report == StopReport(signals=("SIGTERM", "SIGKILL"), killed=3, survivors=0, emptied=True)
    assert second.attempts == ()


@given(st.lists(st.sampled_from(one_of_each())))
def test_facts_in_any_order_are_told_without_an_error(facts):
    past = told(*facts)
    assert len(past) == sum(kind_of(one) in {"issue-claimed", "issue-escalated"} for one in facts)
