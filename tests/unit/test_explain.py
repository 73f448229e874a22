"""Why an issue is dispatched or not: every check, in order, whatever is asked about."""

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from factoryd.core.explain import CHECKS, WOULD_GO, Circumstances, explain, sum_up
from factoryd.core.model import IssueState
from factoryd.core.policy import Dispatch, Escalate, Reopen, Skip, decide
from factoryd.core.records import IssueRecord
from factoryd.flow.looking import Looking
from factoryd.wire.messages import ExplainCall
from tests.fakes.trees import Program
from tests.unit.configs import SMALL, parse
from tests.unit.factories import IMPL, factory
from tests.unit.samples import issue
from tests.unit.test_views import overview_of

__all__ = ["factory"]

S = IssueState
CONFIG = parse(SMALL)
FREE = Circumstances(shown=issue(), record=None, now=5.0, paused=None, slots=2, free_slots=1)


def failing(seen):
    return [one.check for one in explain(seen, CONFIG) if one.passed is False]


def known(state, **fields):
    return IssueRecord(issue=issue(), state=state, since=0.0, **fields)


def test_the_checks_come_in_the_order_of_the_block_reasons():
    assert CHECKS[1:9] == (
        "dispatch already terminal",
        "dispatch already in-flight",
        "dispatch backoff active",
        "dispatch retry limit reached",
        "out of scope",
        "no route",
        "paused",
        "no free slot",
    )
    assert tuple(one.check for one in explain(FREE, CONFIG)) == CHECKS


def test_an_issue_that_nothing_stands_against_passes_every_check():
    assert failing(FREE) == []
    assert sum_up(explain(FREE, CONFIG)) == WOULD_GO


def test_an_issue_that_nobody_knows_is_explained_too():
    findings = explain(replace(FREE, shown=None), CONFIG)
    assert [one.check for one in findings if one.passed is False] == ["unknown issue", "not ready"]
    assert [one.check for one in findings if one.passed is None] == ["out of scope", "no route"]
    assert sum_up(findings).startswith("unknown issue: no source shows it")


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"record": known(S.DONE)}, "dispatch already terminal"),
        ({"record": known(S.RUNNING)}, "dispatch already in-flight"),
        ({"record": known(S.COOLDOWN, not_before=9.0)}, "dispatch backoff active"),
        ({"record": known(S.COOLDOWN, not_before=5.0)}, "dispatch already in-flight"),
        ({"record": known(S.COOLDOWN, attempts_used=99)}, "dispatch retry limit reached"),
        ({"shown": issue(labels=("other", "bug"), repo="demo", recipe="pair")}, "out of scope"),
        ({"shown": issue(repo="nope")}, "no route"),
        ({"paused": "lunch"}, "paused"),
        ({"free_slots": 0}, "no free slot"),
        ({"shown": None, "record": known(S.READY)}, "not ready"),
        ({"trouble": "its source does not answer"}, "trouble"),
    ],
)
def test_each_check_can_fail_alone_and_gives_its_detail(changes, check):
    seen = replace(FREE, **changes)
    assert failing(seen) == [check]
    assert sum_up(explain(seen, CONFIG)).startswith(f"{check}: ")


def test_a_frozen_issue_says_so():
    frozen = replace(FREE, record=known(S.RUNNING, frozen=True, frozen_reason="lunch"))
    assert failing(frozen) == ["dispatch already in-flight", "frozen"]


def test_an_ended_issue_that_came_back_is_new_work():
    ended = known(S.PARKED, left_ready=True, written=True, attempts_used=99)
    assert failing(replace(FREE, record=ended)) == []


@given(
    state=st.sampled_from(S),
    left=st.booleans(),
    written=st.booleans(),
    used=st.integers(0, 4),
    not_before=st.sampled_from([None, 1.0, 5.0, 9.0]),
    fields=st.sampled_from([{}, {"labels": ()}, {"repo": "nope"}, {"repo": "nope", "labels": ()}]),
    escalated_for=st.sampled_from([None, "no route: it names the repo 'nope', which is unknown"]),
)
def test_the_first_failing_check_is_the_reason_of_the_decision(
    state, left, written, used, not_before, fields, escalated_for
):
    shown = issue(**fields)
    record = IssueRecord(
        issue=shown,
        state=state,
        since=0.0,
        left_ready=left,
        written=written,
        attempts_used=used,
        not_before=not_before,
        reason=escalated_for,
    )
    findings = explain(replace(FREE, shown=shown, record=record), CONFIG)
    match decide(shown, record, CONFIG, 5.0):
        case Skip(reason=reason) | Escalate(reason=reason):
            assert sum_up(findings).startswith(reason.split(":")[0])
        case Dispatch():
            assert sum_up(findings) == WOULD_GO
        case Reopen():
            assert all(one.passed for one in findings[:5])


async def test_the_daemon_explains_what_runs_what_waits_and_what_it_never_heard_of(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program()]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        looking = Looking(daemon.shop, daemon.scheduler, overview_of(daemon))
        by_agent = looking.explain(ExplainCall(target=IMPL))
        assert (by_agent.issue, by_agent.state) == ("AR-1", "running")
        assert by_agent.verdict == "dispatch already in-flight: it is running, attempt 1"
        unknown = looking.explain(ExplainCall(target="Z-9"))
        assert (unknown.issue, unknown.state, len(unknown.checks)) == ("Z-9", None, len(CHECKS))
