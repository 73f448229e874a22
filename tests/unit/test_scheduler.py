"""What is worked on, in which order, how much at once, and when nothing is left."""

import pytest
import trio
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.errors import NoSuchTarget
from factoryd.core.events import IssueClaimed, IssueEscalated, IssueLeftReady
from factoryd.core.model import IssueState, Problem
from factoryd.flow import scheduler as scheduler_module
from factoryd.flow.issue_scope import IssueScope
from factoryd.flow.ledger import Ledger
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState
CRASH, FOREVER = Program(status=1), Program()


def slow(factory, *keys, after_s=50.0):
    for key in keys:
        factory.script.parts[f"{key.lower()}-impl"] = [Program(status=0, after_s=after_s)]


def claims(factory):
    return [one.issue for one in factory.of_kind(IssueClaimed)]


# ----------------------------------------------------------------------------- order and slots


async def test_priority_comes_before_age_and_age_before_key(autojump_clock, factory):
    configure(factory, daemon={"slots": 1})
    for key, fields in {
        "C": {"since": 1.0},
        "E": {"priority": 2, "since": 0.0},
        "B": {"since": 2.0},
        "D": {"priority": 1, "since": 9.0},
        "A": {"since": 2.0},
    }.items():
        factory.put(key, **fields)
    await factory.drain()
    assert claims(factory) == ["D", "E", "C", "A", "B"]


async def test_no_more_issues_are_in_flight_than_there_are_slots(autojump_clock, factory):
    keys = [f"AR-{n}" for n in range(7)]
    slow(factory, *keys)
    for key in keys:
        factory.put(key)
    began = trio.current_time()
    async with factory.daemon() as daemon:
        most = 0
        while len(factory.source.outcomes) < len(keys):
            most = max(most, len(factory.left()))
            states = [one.state for one in daemon.ledger.registry.issues.values()]
            assert states.count(S.RUNNING) + states.count(S.CLAIMED) <= 2
            await daemon.ledger.wait_beyond(daemon.ledger.registry.seq)
        assert most == 2
    assert trio.current_time() - began >= 200


async def test_a_slot_is_free_for_others_while_an_issue_cools_down(autojump_clock, factory):
    configure(factory, daemon={"slots": 1}, resume={"max_resumes": 0})
    factory.put("AR-1", priority=1)
    factory.put("AR-2")
    factory.script.parts[IMPL] = [CRASH, Program(status=0)]
    slow(factory, "AR-2", after_s=500)
    async with factory.daemon() as daemon:
        await daemon.wait_runs("ar-2-impl")
        assert daemon.state("AR-1") is S.COOLDOWN
        await trio.sleep(400)
        assert daemon.state("AR-1") is S.COOLDOWN, "its slot is in use"
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.script.started[:2] == [IMPL, "ar-2-impl"]


async def test_a_slot_that_is_taken_while_claims_are_being_committed_breaks_nothing(
    autojump_clock, factory, monkeypatch
):
    """A cooldown ends, and its issue takes the slot, just while a ready one is being claimed."""
    configure(factory, daemon={"slots": 1}, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, FOREVER]
    record = Ledger.record

    async def slowly(self, *facts):
        if any(isinstance(fact, IssueClaimed) and fact.issue == "AR-2" for fact in facts):
            await trio.sleep(500)
        await record(self, *facts)

    monkeypatch.setattr(Ledger, "record", slowly)
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        slow(factory, "AR-2", after_s=10)
        factory.put("AR-2")
        await daemon.wait_state("AR-2", S.DONE)
        await daemon.wait_for(lambda: daemon.state("AR-1") is S.RUNNING)
        assert daemon.shop.slots.free == 0


async def test_issues_that_ran_when_the_daemon_died_keep_their_slots(autojump_clock, factory):
    for n in (1, 2, 3):
        factory.put(f"AR-{n}", priority=n)
        factory.script.parts[f"ar-{n}-impl"] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs("ar-1-impl", "ar-2-impl")
        factory.kill_daemon()
    async with factory.daemon() as daemon:
        await trio.sleep(100)
        assert daemon.shop.slots.free == 0
        assert daemon.state("AR-3") is None
        assert sorted(factory.script.started) == ["ar-1-impl", "ar-2-impl"]


# ------------------------------------------------------------------------------------- sources


async def test_two_sources_with_the_same_key_are_one_issue(autojump_clock, factory):
    other = FakeSource("other")
    factory.sources.append(other)
    shown = factory.put("AR-1", title="from the first")
    other.put(replace(shown, key="ar-1", title="from the second"))
    daemon = await factory.drain()
    assert claims(factory) == ["AR-1"]
    assert factory.script.started == [IMPL, REVIEW]
    assert daemon.record("AR-1").issue.title == "from the first"
    assert list(factory.source.outcomes) == ["AR-1"]
    assert other.outcomes == {}
    assert "ar-1" in other.ready, "the copy stays where it is"


async def test_the_copy_in_a_second_source_does_not_reopen_an_ended_issue(autojump_clock, factory):
    other = FakeSource("other")
    factory.sources.append(other)
    other.put(factory.put("AR-1"))
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(1000)
        assert daemon.state("AR-1") is S.DONE
    assert claims(factory) == ["AR-1"]


async def test_an_ended_issue_that_left_ready_and_came_back_is_new_work(autojump_clock, factory):
    shown = factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(100)
        factory.source.put(shown)
        await daemon.wait_for(lambda: len(factory.source.outcomes["AR-1"]) == 2)
    assert claims(factory) == ["AR-1", "AR-1"]
    assert factory.story("AR-1").count("issue-reopened") == 1
    assert factory.script.started == [IMPL, REVIEW] * 2


async def test_an_issue_that_comes_back_while_its_workspace_is_tidied_waits_for_that(
    autojump_clock, factory
):
    shown = factory.put("AR-1")
    release = factory.workspaces.release
    overlap = []

    async def slowly(issue, repo):
        prepared = len(factory.workspaces.prepared)
        await trio.sleep(100)
        overlap.append(len(factory.workspaces.prepared) - prepared)
        return await release(issue, repo)

    factory.workspaces.release = slowly
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(1)
        factory.source.put(shown)
        await daemon.wait_for(lambda: len(factory.source.outcomes["AR-1"]) == 2)
        await trio.sleep(200)
    assert overlap == [0, 0]
    assert factory.script.started == [IMPL, REVIEW] * 2


async def test_an_issue_that_its_source_keeps_listing_is_not_done_again(autojump_clock, factory):
    class Labels(FakeSource):
        """A source that shows claimed and ended issues as ready all the time."""

        @override
        async def claim(self, issue):
            return await self.read(issue)

    source = Labels()
    factory.source, factory.sources = source, [source]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        await trio.sleep(1000)
    assert factory.script.started == [IMPL, REVIEW]
    assert factory.of_kind(IssueLeftReady) == []


async def test_a_listing_that_fails_is_no_sign_that_issues_left(autojump_clock, factory):
    shown = factory.put("AR-1", repo="nope")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.ESCALATED)
        factory.source.failure = "not mounted"
        factory.source.take_away("AR-1")
        await trio.sleep(200)
        assert factory.of_kind(IssueLeftReady) == []
        factory.source.failure = None
        await trio.sleep(100)
        assert len(factory.of_kind(IssueLeftReady)) == 1
        factory.source.put(replace(shown, repo=None))
        await daemon.wait_state("AR-1", S.DONE)


async def test_promise_9_a_source_that_fails_or_breaks_costs_the_others_nothing(
    autojump_clock, factory, caplog
):
    class Broken(FakeSource):
        @override
        async def list_ready(self):
            raise ZeroDivisionError("a bug in the source")

    class Deaf(FakeSource):
        @override
        async def wait_change(self):
            raise OSError("no inotify")

    failing, broken, deaf = FakeSource("failing"), Broken("broken"), Deaf("deaf")
    failing.failure = "not mounted"
    factory.sources += [failing, broken, deaf]
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        deaf.put(replace(factory.put("AR-2"), key="AR-3"))
        await daemon.wait_state("AR-3", S.DONE)
        await daemon.wait_state("AR-2", S.DONE)
        troubles = {one.name: one.trouble for one in daemon.scheduler.followers}
    assert troubles == {
        "fake": None,
        "failing": "not mounted",
        "broken": "an error inside factoryd: ZeroDivisionError('a bug in the source')",
        "deaf": None,
    }
    assert caplog.text.count("source failing failed: not mounted") == 1


async def test_an_issue_without_a_route_is_escalated_once_and_taken_when_it_has_one(
    autojump_clock, factory
):
    shown = factory.put("AR-1", repo="nope")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.ESCALATED)
        await trio.sleep(500)
        assert len(factory.of_kind(IssueEscalated)) == 1
        assert (
            daemon.record("AR-1").reason == "no route: it names the repo 'nope', which is unknown"
        )
        factory.source.put(replace(shown, repo=None))
        await daemon.wait_state("AR-1", S.DONE)


async def test_an_issue_out_of_scope_is_left_alone(autojump_clock, factory):
    factory.put("AR-1", labels=("other",))
    await factory.drain()
    assert factory.facts() == []
    assert {name for name, _ in factory.source.calls} == {"list_ready"}


# ------------------------------------------------------------------------------------- fences


async def test_promise_9_an_issue_scope_that_breaks_costs_no_other_issue_and_is_led_on(
    autojump_clock, factory, monkeypatch, caplog
):
    breaks = iter(range(3))
    step = IssueScope._step

    async def broken(self, record):
        if record.issue.key == "AR-1" and record.attempt_open and next(breaks, None) is not None:
            raise ZeroDivisionError("a bug in the scope")
        await step(self, record)

    end_attempt = IssueScope._end_attempt

    async def breaks_late(self, end, record):
        if record.issue.key == "AR-1" and next(breaks, None) is not None:
            raise ZeroDivisionError("a bug in the scope")
        await end_attempt(self, end, record)

    monkeypatch.setattr(IssueScope, "_step", broken)
    monkeypatch.setattr(IssueScope, "_end_attempt", breaks_late)
    factory.put("AR-1")
    factory.put("AR-2")
    daemon = await factory.drain()
    assert daemon.state("AR-1") is S.DONE
    assert daemon.state("AR-2") is S.DONE
    assert caplog.text.count("AR-1: an error inside factoryd; the issue is led on") == 3
    assert factory.script.started.count(IMPL) == 1, "what was done is not done again"
    assert factory.left() == []
    assert daemon.shop.slots.free == 2


async def test_a_broken_scope_leaves_no_tree_while_it_waits_to_be_led_on(
    autojump_clock, factory, monkeypatch
):
    empty = IssueScope._empty_leftovers
    breaks = iter(range(1))

    async def broken(self, record):
        if next(breaks, None) is not None:
            raise ZeroDivisionError("a bug in the scope")
        await empty(self, record)

    monkeypatch.setattr(IssueScope, "_empty_leftovers", broken)
    configure(factory, dispatch={"time_limit": 10.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.story("AR-1").count("run-emptied")))
        assert factory.left() == []


async def test_an_issue_whose_scope_keeps_breaking_can_still_be_killed_at_once(
    autojump_clock, factory, monkeypatch
):
    step = IssueScope._step

    async def broken(self, record):
        if record.state is S.CLAIMED:
            raise ZeroDivisionError("a bug in the scope")
        await step(self, record)

    monkeypatch.setattr(IssueScope, "_step", broken)
    monkeypatch.setattr(scheduler_module, "SCOPE_RETRY_S", (300.0,))
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        await trio.sleep(1)
        began = trio.current_time()
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert trio.current_time() - began < 1


# ---------------------------------------------------------------------------------------- kill


async def test_of_several_targets_none_is_touched_when_one_is_unknown(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        with pytest.raises(NoSuchTarget, match="AR-9: no such issue"):
            await daemon.scheduler.kill(["AR-1", "AR-9"], "asked", None)
        assert daemon.state("AR-1") is S.RUNNING


async def test_many_issues_that_are_killed_together_share_one_grace(autojump_clock, factory):
    configure(factory, daemon={"slots": 20})
    keys = [f"AR-{n}" for n in range(20)]
    for key in keys:
        factory.put(key)
        factory.script.parts[f"{key.lower()}-impl"] = [Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(*[f"{key.lower()}-impl" for key in keys])
        began = trio.current_time()
        await daemon.scheduler.kill(keys, "asked", None)
        await daemon.wait_for(lambda: len(factory.source.outcomes) == 20)
        assert trio.current_time() - began == pytest.approx(10, abs=1)


# ---------------------------------------------------------------------------------------- stop


async def test_promise_7_stopping_waits_one_grace_for_all_and_leaves_nothing(
    autojump_clock, factory
):
    for n in (1, 2):
        factory.put(f"AR-{n}")
        factory.script.parts[f"ar-{n}-impl"] = [Program(ignores_terminate=True, children=2)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs("ar-1-impl", "ar-2-impl")
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(10)
    assert factory.left() == []
    assert factory.story("AR-1")[-1] == "run-emptied"


async def test_a_second_signal_skips_what_is_left_of_the_grace(autojump_clock, factory, nursery):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        began = trio.current_time()

        async def second_signal():
            await trio.sleep(3)
            daemon.scheduler.hurry()

        nursery.start_soon(second_signal)
    assert trio.current_time() - began == pytest.approx(3)
    assert factory.left() == []


async def test_a_daemon_that_is_stopped_right_after_its_start_empties_what_it_had_not_adopted(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    assert factory.left() == [IMPL]
    async with factory.daemon():
        pass
    assert factory.left() == []


# ---------------------------------------------------------------------------------------- once


async def test_once_with_nothing_to_do_ends_at_once(autojump_clock, factory):
    began = trio.current_time()
    await factory.drain()
    assert trio.current_time() - began < 1
    assert factory.facts() == []


async def test_once_waits_for_cooldowns_and_for_outcomes_to_be_written(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, CRASH, Program(status=0)]
    await factory.drain()
    assert factory.source.outcomes["AR-1"][0].state is S.DONE


async def test_once_takes_what_becomes_ready_meanwhile(autojump_clock, factory):
    factory.put("AR-1")

    def play(place, command):
        if place.agent == REVIEW:
            factory.put("AR-2")
        return script(place, command)

    script, factory.script = factory.script, play
    await factory.drain()
    assert set(factory.source.outcomes) == {"AR-1", "AR-2"}


async def test_once_does_not_wait_for_what_only_a_person_can_mend(autojump_clock, factory):
    factory.source.problems.append(Problem(where="ready/x.md:3", reason="no title"))
    factory.put("AR-1", repo="nope")
    factory.put("AR-2", labels=())
    factory.put("AR-3")
    daemon = await factory.drain()
    assert daemon.state("AR-1") is S.ESCALATED
    assert list(factory.source.outcomes) == ["AR-3"]


async def test_once_ends_knowing_that_what_it_worked_on_is_no_longer_ready(autojump_clock, factory):
    """So that what is put back before the next start is new work."""
    factory.put("AR-1")
    await factory.drain()
    factory.put("AR-1")
    await factory.drain()
    assert claims(factory) == ["AR-1", "AR-1"]


async def test_iterations_ask_every_source_so_many_times_before_the_end(autojump_clock, factory):
    began = trio.current_time()
    await factory.drain(drain_after=3)
    looks = [name for name, _ in factory.source.calls if name == "list_ready"]
    assert len(looks) >= 3
    assert 60 <= trio.current_time() - began < 61, "a poll interval in between"


# ----------------------------------------------------------------------------------- full disk


async def test_while_facts_cannot_be_written_nothing_new_is_dispatched(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.store.refusal = "the disk is full"
        factory.put("AR-2")
        await trio.sleep(500)
        assert daemon.ledger.trouble == "the disk is full"
        assert factory.script.started == [IMPL]
        assert claims(factory) == ["AR-1"]
        factory.store.refusal = None
        await daemon.wait_state("AR-1", S.DONE)
        await daemon.wait_state("AR-2", S.DONE)


async def test_a_full_disk_does_not_keep_a_stop_from_emptying_every_tree(autojump_clock, factory):
    factory.put("AR-1")
    factory.put("AR-2")
    factory.script.parts |= {
        IMPL: [Program(status=0, after_s=100, children=2)],
        "ar-2-impl": [FOREVER],
    }
    with pytest.RaisesGroup(
        pytest.RaisesExc(Exception, match="disk is full"), flatten_subgroups=True
    ):
        async with factory.daemon() as daemon:
            await daemon.wait_runs(IMPL, "ar-2-impl")
            factory.store.refusal = "the disk is full"
            await trio.sleep(200)
            daemon.ledger.give_up()
    assert factory.left() == []
