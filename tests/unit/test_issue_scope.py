"""One issue from its claim to its outcome, whatever happens on the way."""

import pytest
import trio
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.config import AgentConfig, RecipeConfig
from factoryd.core.errors import SourceFailed
from factoryd.core.events import (
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    IssueCancelled,
    IssueParked,
    IssueStopping,
    RunEmptied,
    RunResult,
    RunStarting,
    StageStarted,
)
from factoryd.core.model import IssueState, Skipped
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState
DONE, CRASH, CHANGES, LATER = (Program(status=n) for n in (0, 1, 10, 75))
FOREVER = Program()


def results(factory):
    return [one.result for one in factory.of_kind(AttemptEnded)]


def outcome(factory, key="AR-1"):
    (note,) = factory.source.outcomes[key]
    return note


# ---------------------------------------------------------------------------------- to the end


async def test_an_issue_goes_from_ready_to_done(autojump_clock, factory):
    factory.put("AR-1", body="Mend the door.")
    daemon = await factory.drain()
    stage = ["stage-started", "run-starting", "run-started", "run-exited", "run-emptied"]
    end = ["attempt-ended", "issue-done", "outcome-written"]
    story = [kind for kind in factory.story("AR-1") if kind != "issue-left-ready"]
    assert story == ["issue-claimed", "attempt-started", *stage, *stage, *end]
    assert daemon.state("AR-1") is S.DONE
    assert factory.script.started == [IMPL, REVIEW]
    assert factory.desk.issues == {"AR-1": "Mend the door."}
    note = outcome(factory)
    assert (note.state, note.attempts, note.rounds, note.reason) == (S.DONE, 1, 1, None)
    assert factory.workspaces.released == [("AR-1", "demo")]
    assert factory.left() == []
    assert daemon.shop.slots.free == 2


async def test_the_issue_is_claimed_in_its_source_before_anything_is_started(
    autojump_clock, factory
):
    factory.put("AR-1")
    await factory.drain()
    calls = [name for name, key in factory.source.calls if key == "AR-1"]
    assert calls == ["claim", "read", "write_outcome"]


async def test_agents_are_told_their_part(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [CHANGES, DONE]
    factory.desk.output[REVIEW] = ["the door", "still squeaks"]
    await factory.drain()
    told = factory.kind.told
    parts = [(one.agent, one.attempt, one.round, one.stage) for one in told]
    assert parts == [(IMPL, 1, 1, 0), (REVIEW, 1, 1, 1), (IMPL, 1, 2, 0), (REVIEW, 1, 2, 1)]
    assert [one.feedback_file for one in told] == [None, None] + [
        factory.desk.feedback_path("AR-1")
    ] * 2
    assert factory.desk.feedback == {"AR-1": "the door\nstill squeaks"}
    assert {one.issue_file for one in told} == {factory.desk.issue_path("AR-1")}
    assert outcome(factory).rounds == 2


async def test_every_reviewer_that_asks_for_changes_is_heard(autojump_clock, factory):
    second = AgentConfig(kind="command", name="second", command=("x",))
    configure(
        factory,
        agents={"second": second},
        recipes={"pair": RecipeConfig(stages=(("implementer",), ("reviewer", "second")))},
    )
    factory.put("AR-1")
    factory.script.parts |= {REVIEW: [CHANGES, DONE], "ar-1-second": [CHANGES, DONE]}
    factory.desk.output |= {REVIEW: ["one"], "ar-1-second": ["two"]}
    await factory.drain()
    assert sorted(factory.desk.feedback["AR-1"].split("\n")) == ["one", "two"]


async def test_a_reviewer_that_is_never_content_parks_the_issue_at_once(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [CHANGES]
    await factory.drain()
    assert factory.script.started == [IMPL, REVIEW] * 3
    assert [one.reason for one in factory.of_kind(IssueParked)] == ["review rounds used up"]
    assert outcome(factory).state is S.PARKED
    assert results(factory) == [AttemptResult.FAILED]


async def test_agents_of_a_stage_run_together_and_stages_in_order(autojump_clock, factory):
    other = AgentConfig(kind="command", name="other", command=("x",))
    configure(
        factory,
        agents={"other": other},
        recipes={"pair": RecipeConfig(stages=(("implementer", "other"), ("reviewer",)))},
    )
    factory.put("AR-1")
    slow = Program(status=0, after_s=50)
    factory.script.parts |= {IMPL: [slow], "ar-1-other": [slow]}
    await factory.drain()
    first, second, third = factory.script.moments
    assert first == second
    assert third - first == pytest.approx(50, abs=0.1)


@pytest.mark.parametrize(("on_failure", "lost"), [("cancel", 0.0), ("wait", 50.0)])
async def test_a_failure_in_a_stage_cancels_the_others_or_waits_for_them(
    autojump_clock, factory, on_failure, lost
):
    other = AgentConfig(kind="command", name="other", command=("x",))
    stages = (("implementer", "other"),)
    configure(
        factory,
        agents={"other": other},
        recipes={"pair": RecipeConfig(stages=stages, on_failure=on_failure)},
        dispatch={"max_attempts": 1},
        resume={"max_resumes": 0},
    )
    factory.put("AR-1")
    factory.script.parts |= {IMPL: [CRASH], "ar-1-other": [Program(status=0, after_s=50)]}
    began = trio.current_time()
    await factory.drain()
    assert trio.current_time() - began == pytest.approx(lost, abs=1)
    other_end = next(
        one.result for one in factory.of_kind(RunEmptied) if one.run.startswith("ar-1-other")
    )
    assert other_end is (RunResult.STOPPED if on_failure == "cancel" else RunResult.SUCCEEDED)
    assert outcome(factory).state is S.PARKED


# ------------------------------------------------------------------------------------ failures


async def test_a_crash_is_resumed_then_fails_the_attempt_then_cools_down_then_parks(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    began = trio.current_time()
    daemon = await factory.drain()
    starts = factory.of_kind(RunStarting)
    assert [(one.resumes) for one in starts] == [0, 1, 0, 1]
    assert results(factory) == [AttemptResult.FAILED] * 2
    (parked,) = factory.of_kind(IssueParked)
    assert parked.reason == "2 of 2 attempts failed, the last because ar-1-impl exited with 1"
    moments = [round(moment - began) for moment in factory.script.moments]
    assert moments[:2] == [0, 1], "resumed after the delay"
    assert 61 <= moments[2] <= 67, "cooled down in between"
    assert moments[3] - moments[2] == 1
    assert daemon.ledger.registry.counters.resumed == 2
    assert factory.workspaces.released == [], "the workspace of a parked issue is kept"
    note = outcome(factory)
    assert (note.state, note.attempts) == (S.PARKED, 2)


async def test_a_second_attempt_begins_exactly_at_the_end_of_the_cooldown(
    autojump_clock, factory, monkeypatch
):
    monkeypatch.setattr("random.random", lambda: 0.0)
    configure(factory, dispatch={"error_cooldown": 1.0}, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        began = trio.current_time()
        await trio.sleep(0.999)
        assert daemon.state("AR-1") is S.COOLDOWN
        assert factory.script.started == [IMPL]
        await trio.sleep(0.002)
        assert factory.script.started == [IMPL, IMPL]
        assert factory.script.moments[1] - began == pytest.approx(1.0)
        await daemon.wait_state("AR-1", S.PARKED)


async def test_exit_75_defers_without_counting_and_longer_each_time(
    autojump_clock, factory, monkeypatch
):
    monkeypatch.setattr("random.random", lambda: 0.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [LATER, LATER, LATER, LATER, LATER, DONE]
    daemon = await factory.drain()
    assert daemon.state("AR-1") is S.DONE
    waits = [
        b - a for a, b in zip(factory.script.moments, factory.script.moments[1:], strict=False)
    ]
    assert waits[:5] == pytest.approx([60, 120, 240, 300, 300], abs=0.1)
    assert results(factory) == [AttemptResult.DEFERRED] * 5 + [AttemptResult.SUCCEEDED]
    assert {one.attempt for one in factory.of_kind(AttemptStarted)} == {1}
    assert outcome(factory).attempts == 1


async def test_an_attempt_that_takes_too_long_fails_and_its_trees_are_emptied(
    autojump_clock, factory
):
    configure(factory, dispatch={"max_attempts": 1, "time_limit": 100.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    began = trio.current_time()
    await factory.drain()
    assert trio.current_time() - began == pytest.approx(100, abs=1)
    (ended,) = factory.of_kind(AttemptEnded)
    assert ended.reason == "time limit of 100 s reached"
    assert [one.result for one in factory.of_kind(RunEmptied)] == [RunResult.STOPPED]
    assert factory.left() == []


async def test_a_workspace_that_cannot_be_made_fails_the_attempt_with_its_reason(
    autojump_clock, factory
):
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.workspaces.failure = "demo-repo is not a git repository"
    await factory.drain()
    (ended,) = factory.of_kind(AttemptEnded)
    assert ended.reason == "demo-repo is not a git repository"
    assert factory.script.started == []
    assert outcome(factory).state is S.PARKED


async def test_an_agent_that_cannot_be_started_fails_the_attempt_with_its_reason(
    autojump_clock, factory
):
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(cannot_start="./implement.sh: No such file")]
    await factory.drain()
    assert factory.story("AR-1").count("run-emptied") == 1
    (ended,) = factory.of_kind(AttemptEnded)
    assert ended.reason == "./implement.sh: No such file"


async def test_an_error_inside_factoryd_in_an_attempt_fails_only_that_attempt(
    autojump_clock, factory, caplog
):
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.kind.error = ZeroDivisionError("a bug")
    await factory.drain()
    (ended,) = factory.of_kind(AttemptEnded)
    assert ended.reason == "an error inside factoryd: ZeroDivisionError('a bug')"
    assert "ZeroDivisionError" in caplog.text
    assert factory.story("AR-1").count("run-emptied") == 1, "the run it had recorded is closed"
    assert outcome(factory).state is S.PARKED


async def test_a_lower_limit_of_attempts_parks_an_issue_that_has_used_them_up(
    autojump_clock, factory
):
    configure(factory, dispatch={"max_attempts": 5})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: len(results(factory)) == 2)
    configure(factory, dispatch={"max_attempts": 2})
    daemon = await factory.drain()
    assert daemon.record("AR-1").attempts_used == 2
    assert outcome(factory).state is S.PARKED


# -------------------------------------------------------------------------- gone, changed, written


def at_the_claim(factory, **fields):
    """Change an issue just before it is claimed."""
    shown = factory.source.ready["AR-1"]

    def edit(method):
        if method == "claim":
            factory.source.ready["AR-1"] = replace(shown, **fields)

    factory.source.before = edit


async def test_an_issue_that_is_gone_when_it_would_be_claimed_starts_nothing(
    autojump_clock, factory
):
    factory.put("AR-1")

    def take_away(method):
        if method == "claim":
            factory.source.take_away("AR-1")

    factory.source.before = take_away
    await factory.drain()
    assert factory.script.started == []
    assert factory.story("AR-1").count("run-starting") == 0
    (cancelled,) = factory.of_kind(IssueCancelled)
    assert cancelled.reason == "it is gone from its source"


async def test_an_issue_that_left_the_scope_before_its_claim_starts_nothing(
    autojump_clock, factory
):
    factory.put("AR-1")
    at_the_claim(factory, labels=("other",))
    daemon = await factory.drain()
    assert factory.script.started == []
    assert daemon.state("AR-1") is S.CANCELLED
    assert "out of scope" in (daemon.record("AR-1").reason or "")


async def test_what_the_issue_says_when_it_is_claimed_is_what_its_agents_get(
    autojump_clock, factory
):
    factory.put("AR-1", body="old")
    at_the_claim(factory, body="new")
    await factory.drain()
    assert factory.desk.issues == {"AR-1": "new"}


@pytest.mark.parametrize(("fields", "agents"), [({"labels": ()}, []), ({}, [IMPL, REVIEW])])
async def test_an_issue_is_read_again_after_a_workspace_that_took_long(
    autojump_clock, factory, fields, agents
):
    shown = factory.put("AR-1", body="old")
    prepare = factory.workspaces.prepare

    async def slowly(issue, repo):
        await trio.sleep(60)
        factory.source.active["AR-1"] = replace(shown, body="new", **fields)
        return await prepare(issue, repo)

    factory.workspaces.prepare = slowly
    await factory.drain()
    assert factory.script.started == agents
    assert factory.desk.issues == ({"AR-1": "new"} if agents else {})


async def test_a_write_back_that_fails_is_retried_and_keeps_the_claim(autojump_clock, factory):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        factory.script.parts[REVIEW] = [Program(status=0, after_s=10)]
        await daemon.wait_runs(REVIEW)
        factory.source.failure = "the folder is not mounted"
        await daemon.wait_state("AR-1", S.DONE)
        await trio.sleep(300)
        assert not daemon.record("AR-1").written
        assert "AR-1" in factory.source.active
        assert daemon.shop.slots.free == 2, "others go on meanwhile"
        factory.source.failure = None
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
    assert outcome(factory).state is S.DONE


async def test_a_write_back_goes_on_after_a_restart(autojump_clock, factory):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        factory.script.parts[REVIEW] = [Program(status=0, after_s=10)]
        await daemon.wait_runs(REVIEW)
        factory.source.failure = "the folder is not mounted"
        await daemon.wait_state("AR-1", S.DONE)
    factory.source.failure = None
    await factory.drain()
    assert outcome(factory).state is S.DONE
    assert factory.script.started == [IMPL, REVIEW]


async def test_a_claim_that_fails_is_retried_while_the_issue_is_there(autojump_clock, factory):
    factory.put("AR-1")
    refusals = iter([SourceFailed("busy"), SourceFailed("busy")])

    class Busy(FakeSource):
        @override
        async def claim(self, issue):
            if error := next(refusals, None):
                raise error
            return await super().claim(issue)

    busy = Busy()
    busy.put(factory.source.ready.pop("AR-1"))
    factory.source = busy
    factory.sources = [busy]
    await factory.drain()
    assert outcome(factory).state is S.DONE


# ------------------------------------------------------------------------------------------ kill


async def kill(daemon, *keys, grace_s=None):
    await daemon.scheduler.kill(list(keys), "asked by a test", grace_s)


async def assert_killed(factory, daemon, key="AR-1"):
    await daemon.wait_for(lambda: daemon.record(key).written)
    assert daemon.state(key) is S.CANCELLED
    assert outcome(factory, key).reason == "asked by a test"
    assert factory.left() == []
    assert [one.result for one in factory.of_kind(RunEmptied)][-1:] in ([], [RunResult.STOPPED])
    await trio.testing.wait_all_tasks_blocked()
    assert daemon.shop.slots.free == 2


async def test_a_ready_issue_that_waits_for_a_slot_can_be_killed(autojump_clock, factory):
    configure(factory, daemon={"slots": 1})
    for n in (1, 2):
        factory.put(f"AR-{n}", priority=n)
        factory.script.parts[f"ar-{n}-impl"] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        assert daemon.state("AR-2") is None
        await kill(daemon, "AR-2")
        await daemon.wait_for(lambda: daemon.record("AR-2").written)
        assert outcome(factory, "AR-2").state is S.CANCELLED
        assert factory.script.started == [IMPL]
        assert daemon.state("AR-1") is S.RUNNING


async def test_an_escalated_issue_can_be_killed(autojump_clock, factory):
    factory.put("AR-1", repo="nope")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.ESCALATED)
        await kill(daemon, "AR-1")
        await assert_killed(factory, daemon)


async def test_a_claimed_issue_whose_source_does_not_answer_can_be_killed(autojump_clock, factory):
    factory.put("AR-1")
    gate = trio.Event()
    factory.source.before = lambda name: gate if name == "claim" else None
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        await kill(daemon, "AR-1")
        await daemon.wait_state("AR-1", S.CANCELLED)
        gate.set()
        await assert_killed(factory, daemon)
        assert factory.script.started == []
        assert factory.source.ready == {}


async def test_an_issue_can_be_killed_while_its_first_agent_is_being_started(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "run-starting" in factory.story("AR-1"))
        await kill(daemon, "AR-1")
        await assert_killed(factory, daemon)


async def test_an_issue_that_is_stopped_right_before_its_agent_starts_has_not_failed(
    autojump_clock, factory, monkeypatch
):
    async with factory.daemon() as daemon:
        record = daemon.ledger.record

        async def stopped_before(*facts):
            if facts and isinstance(facts[0], RunStarting):
                await record(IssueStopping(issue="AR-1", reason="asked by a test"))
            await record(*facts)

        monkeypatch.setattr(daemon.ledger, "record", stopped_before)
        factory.put("AR-1")
        await daemon.wait_for(lambda: "issue-claimed" in factory.story("AR-1"))
        await assert_killed(factory, daemon)
    assert results(factory) == [AttemptResult.CANCELLED]
    assert factory.script.started == []


async def test_a_running_issue_can_be_killed(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await kill(daemon, "AR-1")
        await assert_killed(factory, daemon)
    assert results(factory) == [AttemptResult.CANCELLED]
    assert factory.workspaces.released == [("AR-1", "demo")]


async def test_an_issue_in_cooldown_can_be_killed_and_is_not_tried_again(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        started = len(factory.script.started)
        await kill(daemon, "AR-1")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        await trio.sleep(500)
        assert daemon.state("AR-1") is S.CANCELLED
        assert len(factory.script.started) == started


async def test_an_issue_that_is_stopping_can_be_killed_once_more_with_less_grace(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        began = trio.current_time()
        await kill(daemon, "AR-1", grace_s=600)
        await trio.sleep(3)
        assert daemon.state("AR-1") is S.STOPPING
        await kill(daemon, "AR-1", grace_s=2)
        await assert_killed(factory, daemon)
        assert trio.current_time() - began == pytest.approx(5, abs=0.5)


async def test_an_issue_that_waits_for_a_resume_can_be_killed(autojump_clock, factory):
    configure(factory, resume={"delay": 1000.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "run-emptied" in factory.story("AR-1"))
        await trio.sleep(1)
        await kill(daemon, "AR-1")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.state("AR-1") is S.CANCELLED
        assert factory.script.started == [IMPL]


@pytest.mark.parametrize("part", [DONE, CRASH])
async def test_an_ended_issue_cannot_be_killed_and_says_so(autojump_clock, factory, part):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [part]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: (r := daemon.ledger.registry.issue("AR-1")) and r.written)
        with pytest.raises(Exception, match="AR-1 has ended already: it is "):
            await kill(daemon, "AR-1")


async def test_a_kill_of_several_goes_on_when_one_of_them_ends_by_itself(
    autojump_clock, factory, monkeypatch
):
    configure(factory, daemon={"slots": 3})
    agents = {"AR-1": "ar-1-impl", "AR-2": "ar-2-reviewer", "AR-3": "ar-3-impl"}
    for key, agent in agents.items():
        factory.put(key)
        factory.script.parts[agent] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(*agents.values())
        record = daemon.ledger.record

        async def slowly(*facts):
            if facts and isinstance(facts[0], IssueStopping) and facts[0].issue == "AR-2":
                (reviewed,) = [
                    one
                    for one in factory.world.lives.values()
                    if one.left and one.place.issue == "AR-2"
                ]
                reviewed.end(0)
                await daemon.wait_state("AR-2", S.DONE)
            await record(*facts)

        monkeypatch.setattr(daemon.ledger, "record", slowly)
        await kill(daemon, *agents)
        await daemon.wait_for(lambda: all(daemon.record(key).written for key in agents))
    states = [outcome(factory, key).state for key in agents]
    assert states == [S.CANCELLED, S.DONE, S.CANCELLED]


async def test_a_kill_that_comes_before_any_scope_leads_the_issue_is_not_lost(
    autojump_clock, factory
):
    """Right after a start the control socket answers before the scheduler has looked around."""
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
    async with factory.daemon() as daemon:
        await kill(daemon, "AR-1")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert daemon.state("AR-1") is S.CANCELLED


async def test_promise_7_an_issue_is_called_over_only_when_nothing_of_it_runs(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True, children=3)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await kill(daemon, "AR-1")
        while daemon.state("AR-1") is not S.CANCELLED:
            assert daemon.state("AR-1") is S.STOPPING
            assert "AR-1" not in factory.source.outcomes
            await daemon.ledger.wait_beyond(daemon.ledger.registry.seq)
        assert factory.left() == []
        assert factory.story("AR-1").index("run-emptied") < factory.story("AR-1").index(
            "issue-cancelled"
        )


# ---------------------------------------------------------------------------- stop and go on


async def test_a_daemon_that_is_stopped_leaves_no_tree_and_the_next_one_goes_on(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts |= {IMPL: [CRASH, CRASH, DONE], REVIEW: [CHANGES, FOREVER, DONE]}
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: factory.script.started.count(REVIEW) == 2)
        await daemon.wait_runs(REVIEW)
        before = daemon.record("AR-1")
        assert (before.attempt, before.round, before.stage) == (2, 2, 1)
    assert factory.left() == []
    factory.source.calls.clear()
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: factory.script.started.count(REVIEW) == 3)
        after = daemon.record("AR-1")
        assert (after.attempt, after.round, after.stage) == (2, 2, 1)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
    assert ("claim", "AR-1") not in factory.source.calls
    assert factory.script.started.count(IMPL) == 4
    assert outcome(factory).state is S.DONE
    assert len(factory.of_kind(AttemptStarted)) == 2


async def test_a_stage_that_goes_on_runs_only_the_agents_that_were_not_done(
    autojump_clock, factory
):
    other = AgentConfig(kind="command", name="other", command=("x",))
    configure(
        factory,
        agents={"other": other},
        recipes={"pair": RecipeConfig(stages=(("implementer", "other"),))},
    )
    factory.put("AR-1")
    factory.script.parts["ar-1-other"] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "run-emptied" in factory.story("AR-1"))
        await daemon.wait_runs("ar-1-other")
    await factory.drain()
    assert sorted(factory.script.started) == [IMPL, "ar-1-other", "ar-1-other"]


@pytest.mark.parametrize(
    ("part", "then"),
    [(CHANGES, [IMPL, REVIEW, IMPL, REVIEW]), (DONE, [IMPL, REVIEW])],
)
async def test_a_verdict_that_was_given_before_the_daemon_died_stands(
    autojump_clock, factory, part, then
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [part, DONE]
    factory.desk.output[REVIEW] = ["mend more"]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: factory.story("AR-1").count("run-emptied") == 2)
        factory.kill_daemon()
        assert factory.story("AR-1")[-1] == "run-emptied"
    await factory.drain()
    assert factory.script.started == then
    assert outcome(factory).state is S.DONE


async def test_an_attempt_that_was_put_off_before_the_daemon_died_stays_put_off(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=75), DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "run-emptied" in factory.story("AR-1"))
        factory.kill_daemon()
        assert factory.story("AR-1")[-1] == "run-emptied"
    await factory.drain()
    assert results(factory) == [AttemptResult.DEFERRED, AttemptResult.SUCCEEDED]
    first, second = factory.script.moments[:2]
    assert second - first >= factory.config.dispatch.error_cooldown


async def test_dying_again_and_again_grants_no_more_resumes_than_the_budget(
    autojump_clock, factory
):
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    for n in (1, 2, 3, 4):
        if "issue-parked" in factory.story("AR-1"):
            break
        async with factory.daemon() as daemon:
            await daemon.wait_for(
                lambda n=n, daemon=daemon: (
                    factory.story("AR-1").count("run-emptied") == n
                    or daemon.state("AR-1") is S.PARKED
                )
            )
            factory.kill_daemon()
    assert factory.script.started == [IMPL, IMPL]


async def test_an_attempt_that_had_started_nothing_is_checked_again_before_it_does(
    autojump_clock, factory
):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "attempt-started" in factory.story("AR-1"))
        factory.kill_daemon()
    assert factory.story("AR-1")[-2:] == ["attempt-started", "stage-started"]
    factory.script.started.clear()
    factory.source.take_away("AR-1")
    await factory.drain()
    assert factory.script.started == []
    assert outcome(factory).reason == "it is gone from its source"
    assert [one.attempt for one in factory.of_kind(AttemptStarted)] == [1]


async def test_an_issue_that_was_being_stopped_is_stopped_by_the_next_daemon(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await kill(daemon, "AR-1", grace_s=500)
        await trio.sleep(1)
        factory.kill_daemon()
        daemon.scheduler.hurry()
    assert factory.left() == [IMPL]
    await factory.drain()
    assert factory.left() == []
    assert outcome(factory).state is S.CANCELLED


async def test_a_tree_that_cannot_be_emptied_ends_the_issue_as_a_handoff(autojump_clock, factory):
    stuck = Program(survivors=(Skipped(pid=99, reason="uninterruptible sleep"),))
    factory.put("AR-1")
    factory.script.parts[IMPL] = [stuck]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await kill(daemon, "AR-1")
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        (handoff,) = daemon.ledger.registry.handoffs.values()
        assert handoff.reason == "1 process is left: 99 (uninterruptible sleep)"
        assert daemon.state("AR-1") is S.CANCELLED


async def test_a_stage_started_is_recorded_before_its_runs(autojump_clock, factory):
    factory.put("AR-1")
    await factory.drain()
    stages = [(one.round, one.stage) for one in factory.of_kind(StageStarted)]
    assert stages == [(1, 0), (1, 1)]
