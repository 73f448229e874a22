"""The scope gate: which issues may be touched at all, and when that is asked."""

import pytest
import trio
from msgspec.structs import replace

from factoryd.adapters.sources.front_matter import parse_issue
from factoryd.core.closing import GONE_FOR_S
from factoryd.core.config import SafetyConfig
from factoryd.core.events import IssueCancelled, IssueDone, OutcomeWithheld, OutcomeWritten
from factoryd.core.model import IssueState
from factoryd.core.triage import refuse_scope
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import issue

__all__ = ["factory"]

S = IssueState
ALL = SafetyConfig(require_label="factory", require_title_prefix="[factory]", require_team="core")
PASSES = issue(title="[factory] mend it", labels=("Factory",), team="core")


@pytest.mark.parametrize("lacking", [{"labels": ()}, {"title": "mend it"}, {"team": "web"}])
def test_all_lines_that_are_set_must_pass(lacking):
    assert refuse_scope(PASSES, ALL) is None
    refused = refuse_scope(replace(PASSES, **lacking), ALL)
    assert refused is not None
    assert refused.startswith("out of scope: ")


def test_an_absent_team_passes():
    assert refuse_scope(replace(PASSES, team=None), ALL) is None


@pytest.mark.parametrize("title", ["[factory]", "[factory] x"])
def test_a_title_is_the_prefix_or_the_prefix_and_one_space(title):
    assert refuse_scope(replace(PASSES, title=title), ALL) is None


@pytest.mark.parametrize(
    "title", ["[factory]x", "[Factory] x", "[FACTORY] x", "x [factory] y", "[factory]  x", "x"]
)
def test_a_near_miss_of_the_prefix_is_refused_even_with_the_marker_in_the_body(title):
    near = replace(PASSES, title=title, body="[factory] mend it")
    assert refuse_scope(near, ALL) is not None


@pytest.mark.parametrize(
    "labels", ["[FACTORY]", "[{name: Factory}]", "[bug, {name: factory, color: red}]"]
)
def test_labels_are_texts_or_have_a_name_and_count_in_any_case(labels):
    text = f"---\nkey: A-1\ntitle: t\nlabels: {labels}\n---\n"
    read = parse_issue(text.encode()).labels
    assert refuse_scope(issue(labels=read), SafetyConfig()) is None


def test_a_misspelt_field_costs_no_issue_and_the_refusal_says_what_is_lacking():
    read = parse_issue(b"---\nkey: A-1\ntitle: t\nlables: [factory]\n---\n")
    refused = refuse_scope(issue(labels=read.labels), SafetyConfig())
    assert refused == "out of scope: it lacks the label 'factory'"


# ------------------------------------------------------------------------------- when it is asked


async def test_the_gate_is_asked_at_sight(autojump_clock, factory):
    factory.put("AR-1", labels=("other",))
    daemon = await factory.drain()
    assert factory.facts() == []
    assert "out of scope" in str(daemon.scheduler.decide(factory.source.ready["AR-1"]))


async def test_the_gate_is_asked_again_right_before_the_first_spawn(autojump_clock, factory):
    shown = factory.put("AR-1")

    def edit(method):
        if method == "claim":
            factory.source.ready["AR-1"] = replace(shown, labels=())

    factory.source.before = edit
    daemon = await factory.drain()
    assert factory.script.started == []
    assert daemon.record("AR-1").attempts_used == 0
    (cancelled,) = factory.of_kind(IssueCancelled)
    assert cancelled.reason == "out of scope: it lacks the label 'factory'"
    assert factory.source.outcomes == {}, "what is out of scope is not written to"


async def test_the_gate_is_asked_again_before_the_write_back_and_its_no_is_recorded_and_shown(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [Program(status=0, after_s=10)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(REVIEW)
        factory.source.active["AR-1"] = replace(factory.source.active["AR-1"], labels=())
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.record("AR-1").reason == (
            "its outcome is not written back: out of scope: it lacks the label 'factory'"
        )
    assert factory.source.outcomes == {}
    assert "AR-1" in factory.source.active
    assert len(factory.of_kind(IssueDone)) == len(factory.of_kind(OutcomeWithheld)) == 1
    assert factory.of_kind(OutcomeWritten) == []
    assert factory.store.held == set(), "the claim is over all the same"


async def test_an_issue_that_is_gone_is_no_reason_to_withhold_its_outcome(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [Program(status=0, after_s=GONE_FOR_S / 2)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(REVIEW)
        factory.source.take_away("AR-1")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
    assert factory.source.outcomes["AR-1"][0].state is S.DONE


async def test_an_issue_that_came_back_into_scope_after_it_was_left_alone_is_new_work(
    autojump_clock, factory
):
    shown = factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=10)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.source.active["AR-1"] = replace(shown, labels=())
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        factory.source.active.clear()
        await trio.sleep(100)
        factory.source.put(shown)
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
    assert factory.source.outcomes["AR-1"][0].state is S.DONE
    assert factory.script.started == [IMPL, REVIEW] * 2


async def test_an_open_gate_costs_no_look_before_the_write_back(autojump_clock, factory):
    configure(factory, safety={"require_label": ""})
    factory.put("AR-1")
    await factory.drain()
    calls = [name for name, key in factory.source.calls if key == "AR-1"]
    assert calls == ["claim", "write_outcome"]
