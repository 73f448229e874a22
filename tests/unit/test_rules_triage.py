"""Triage: where an issue goes, and that one that goes nowhere waits for a change."""

import re
import time
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from factoryd.core.config import RouteConfig
from factoryd.core.events import IssueEscalated
from factoryd.core.keyword import MAX_STEPS, REACHES, BadKeyword, is_in, measure_reach
from factoryd.core.model import IssueState
from factoryd.core.policy import Dispatch, Escalate, Skip, decide
from factoryd.core.records import IssueRecord
from factoryd.core.triage import Routed, choose_route
from tests.unit.configs import SMALL, change, find_document_mistakes, parse
from tests.unit.factories import configure, factory
from tests.unit.samples import issue

__all__ = ["factory"]

S = IssueState
KINDS = ("label", "project", "team", "keyword", "default")
ROUTES = [
    RouteConfig(label="l", repo="label", recipe="pair"),
    RouteConfig(project="p", repo="project", recipe="pair"),
    RouteConfig(team="t", repo="team", recipe="pair"),
    RouteConfig(keyword="boom", repo="keyword", recipe="pair"),
    RouteConfig(default=True, repo="default", recipe="pair"),
]
HINTS = [("labels", ("L",)), ("project", "p"), ("team", "t"), ("body", "it goes boom")]


def routes(*kinds):
    """Return a configuration with one route of each kind, to repositories named after them."""
    config = parse(SMALL)
    made = tuple(one for one in reversed(ROUTES) if one.repo in kinds)
    return replace(config, routes=made, repos=dict.fromkeys(kinds, config.repos["demo"]))


def test_label_before_project_before_team_before_keyword_before_default():
    config = routes(*KINDS)
    for n, kind in enumerate(KINDS):
        hints: dict[str, Any] = dict([("labels", ()), *HINTS[n:]])
        found = choose_route(issue(**hints), config)
        assert isinstance(found, Routed)
        assert found.repo == kind


def test_a_keyword_is_looked_for_in_title_and_body():
    config = routes("keyword")
    assert isinstance(choose_route(issue(title="boom"), config), Routed)
    assert isinstance(choose_route(issue(body="a boom"), config), Routed)
    assert not isinstance(choose_route(issue(title="quiet"), config), Routed)


# ---------------------------------------------------------------------------------- no route


def test_an_issue_without_a_route_is_escalated_and_not_again_until_it_or_the_configuration_changes():
    config = routes("team")
    lost = issue(team=None)
    first = decide(lost, None, config, 0.0)
    assert isinstance(first, Escalate)
    known = IssueRecord(issue=lost, state=S.ESCALATED, since=0.0, reason=first.reason)
    for now in (0.0, 1e3, 1e9):
        assert decide(lost, known, config, now) == Skip(issue=lost, reason=first.reason)
    assert isinstance(decide(issue(team="t"), known, config, 1.0), Dispatch)
    assert isinstance(decide(lost, known, routes("team", "default"), 1.0), Dispatch)


async def test_an_escalated_issue_is_never_dispatched_and_keeps_its_reason(autojump_clock, factory):
    factory.put("AR-1", repo="nope")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.ESCALATED)
        await trio.sleep(80_000)
        assert daemon.state("AR-1") is S.ESCALATED
    assert len(factory.of_kind(IssueEscalated)) == 1
    assert factory.script.started == []


async def test_an_escalated_issue_is_taken_when_the_configuration_leads_it_somewhere(
    autojump_clock, factory
):
    factory.put("AR-1", repo="late")
    await factory.drain()
    assert factory.script.started == []
    configure(factory, repos={"late": factory.config.repos["demo"]})
    daemon = await factory.drain()
    assert daemon.state("AR-1") is S.DONE


# ------------------------------------------------------------------------------------ keywords


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|aa)+$",
        "(a*)*b",
        "(.*a){20}",
        "(x+x+)+y",
        "a.*b.*c.*d",
        "(a?){30}a{30}",
        r"(\w+\s?)*$",
        r"(a)\1",
        "(?=a+)b",
        "(" * 50 + "a" + ")*" * 50,
    ],
)
def test_a_keyword_that_could_take_long_is_refused_when_the_configuration_is_loaded(pattern):
    document = change("routes[0].keyword", pattern)
    del document["routes"][0]["label"]
    mistakes = find_document_mistakes(document)
    assert "may take too long" in mistakes["routes[0].keyword"]


@pytest.mark.parametrize(
    ("pattern", "reach"),
    [
        (r"(?i)\bcrash(es|ed)?\b", REACHES[0]),
        ("crash|panic|(out of|low) memory|leak", REACHES[0]),
        (r"error \d+", REACHES[0]),
        (r"(\d{1,3}\.){3}\d{1,3}", REACHES[0]),
        ("login.{0,80}fails", REACHES[0]),
        (r"out of\s+memory", REACHES[1]),
        (".*urgent.*", REACHES[1]),
        ("login.*fails", REACHES[1]),
    ],
)
def test_a_keyword_reads_as_much_as_it_can_in_bounded_time(pattern, reach):
    assert measure_reach(pattern) == reach


def test_a_keyword_reads_no_further_than_its_reach():
    assert is_in("boom", " " * 99_000 + "boom")
    assert not is_in("boom", " " * 100_000 + "boom")


PARTS = st.sampled_from(
    ["a", "b", ".", "[ab]", "a*", "b+", ".*", "(ab)*", "(a|b)?", "(a|ab)", "a{0,9}", "b{3}", "$"]
)


@settings(deadline=None, max_examples=60)
@given(pattern=st.lists(PARTS, min_size=1, max_size=5).map("".join), text=st.sampled_from("ab x"))
def test_a_keyword_that_is_taken_finds_what_python_finds_and_takes_no_longer_than_its_bound(
    pattern, text
):
    try:
        reach = measure_reach(pattern)
    except BadKeyword:
        return
    assert is_in(pattern, text * 50 + "b") is bool(re.search(pattern, text * 50 + "b"))
    began = time.process_time()
    is_in(pattern, text * reach)
    assert time.process_time() - began < MAX_STEPS / 1e7
