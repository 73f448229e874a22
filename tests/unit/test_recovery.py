"""What a new daemon does with what the last one left, and the reaper's debts."""

from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import pytest
import trio
from msgspec.structs import replace

from factoryd.core.config import Config
from factoryd.core.errors import FactoryError, LedgerUnavailable
from factoryd.core.events import (
    AttemptEnded,
    AttemptStarted,
    HandoffCleared,
    HandoffMade,
    RunEmptied,
    RunResult,
    RunStarted,
    RunStarting,
)
from factoryd.core.model import AgentState, Command, Exit, IssueState, RunId, Skipped
from factoryd.core.registry import Draft, Registry
from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulse
from factoryd.flow.recovery import Reaper
from factoryd.flow.settings import Settings
from tests.fakes.factory import Daemon
from tests.fakes.trees import FakeTrees, Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import run_starting

__all__ = ["factory"]

S = IssueState
CRASH, DONE, FOREVER = Program(status=1), Program(status=0), Program()
STUCK = Program(survivors=(Skipped(pid=99, reason="uninterruptible sleep"),))


def heal(factory):
    """Let every stuck process end after all."""
    for life in factory.world.lives.values():
        life.program = Program()


# ------------------------------------------------------------------------------------ adoption


async def test_promise_6_a_running_agent_is_adopted_and_not_started_again(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    began = trio.current_time()
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(daemon.runner.live))
        assert trio.current_time() - began < 1
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.script.started == [IMPL, REVIEW]
    assert len(factory.of_kind(AttemptStarted)) == 1
    assert factory.of_kind(RunEmptied)[0].result is RunResult.SUCCEEDED


async def test_a_stop_that_a_daemon_did_not_live_to_finish_is_finished_by_the_next_one(
    autojump_clock, factory
):
    factory.put("AR-1")
    slow = Program(status=0, after_s=100, ignores_terminate=True)
    factory.script.parts[IMPL] = [slow, Program(status=0, after_s=10)]
    configure(factory, stop={"grace": 30.0})
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        daemon.work.cancel(reason="SIGTERM")
        await trio.sleep(5)
        factory.kill_daemon()
    assert factory.left() == [IMPL], "it has been signalled, and goes on"
    began = trio.current_time()
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        assert 40 <= trio.current_time() - began < 50, "a grace, and the work anew"
    first, second, _ = factory.of_kind(RunEmptied)
    assert (first.result, second.result) == (RunResult.STOPPED, RunResult.SUCCEEDED)
    assert factory.script.started == [IMPL, IMPL, REVIEW]
    assert len(factory.of_kind(AttemptStarted)) == 1, "no attempt of it is used up"


async def test_a_running_agent_is_adopted_at_once_even_if_its_source_is_silent_or_has_lost_it(
    autojump_clock, factory
):
    factory.put("AR-1", body="Mend it.")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    factory.source.take_away("AR-1")
    factory.source.failure = "not mounted"
    async with factory.daemon() as daemon:
        await trio.sleep(1)
        assert list(daemon.follower.following) == list(daemon.runner.live) != []
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.desk.issues == {"AR-1": "Mend it."}, "the agents' copy is as it was"


async def test_the_exit_of_an_agent_that_ended_while_nobody_looked_is_known(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    (life,) = factory.world.lives.values()
    life.end(3)
    await factory.drain()
    assert factory.script.started == [IMPL, IMPL, REVIEW]
    assert [one.resumes for one in factory.of_kind(RunStarting)] == [0, 1, 0]
    assert factory.of_kind(RunEmptied)[0].reason == "ar-1-impl exited with 3"


async def test_promise_3_a_run_is_recorded_before_it_can_exist(autojump_clock, factory):
    factory.put("AR-1")

    def play(place, command):
        (recorded,) = [one for one in factory.of_kind(RunStarting) if one.run == place.run]
        assert recorded.place == place
        assert recorded.agent == place.agent
        return script(place, command)

    script, factory.script = factory.script, play
    await factory.drain()
    assert script.started == [IMPL, REVIEW]
    assert len(factory.of_kind(RunStarting)) == 2


async def test_promise_3_a_record_without_a_tree_is_closed_and_the_work_goes_on(
    autojump_clock, factory
):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.of_kind(RunStarting)))
        factory.kill_daemon()
    assert factory.story("AR-1")[-1] == "run-starting"
    factory.world.lives.clear()
    factory.script.started.clear()
    await factory.drain()
    lost = factory.of_kind(RunEmptied)[0]
    assert (lost.result, lost.reason) == (
        RunResult.LOST,
        "ar-1-impl was lost: it never began",
    )
    assert factory.script.started == [IMPL, REVIEW]
    assert [one.resumes for one in factory.of_kind(RunStarting)] == [0, 0, 0], "it is not blamed"


async def test_promise_3_a_run_whose_start_was_not_recorded_is_taken_over_and_then_it_is(
    autojump_clock, factory, monkeypatch
):
    start, died = FakeTrees.start, trio.Event()

    async def start_and_die(trees, place, command):
        tree = await start(trees, place, command)
        if not died.is_set():
            factory.kill_daemon()
            died.set()
        return tree

    monkeypatch.setattr(FakeTrees, "start", start_and_die)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100.0)]
    async with factory.daemon():
        await died.wait()
    assert factory.story("AR-1")[-1] == "run-starting"
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.of_kind(RunStarted)))
        (life,) = factory.world.lives.values()
        (run,) = daemon.record("AR-1").runs.values()
        assert (run.identity, run.state) == (life.identity, AgentState.RUNNING)
        await daemon.wait_state("AR-1", IssueState.DONE)
    assert factory.script.started == [IMPL, REVIEW], "nothing was dispatched twice"


async def test_an_issue_that_is_killed_before_it_is_taken_over_gives_its_slot_back(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    async with trio.open_nursery() as nursery:
        daemon = Daemon(factory, factory.config)
        empty = daemon.reaper.empty_strays

        async def kill_meanwhile():
            await daemon.scheduler.kill(["AR-1"], "enough", None)
            return await empty()

        monkeypatch.setattr(daemon.reaper, "empty_strays", kill_meanwhile)
        await nursery.start(daemon.serve)
        await daemon.wait_state("AR-1", IssueState.CANCELLED)
        assert daemon.shop.slots.free == daemon.shop.slots.total
        daemon.work.cancel(reason="SIGTERM")


async def test_promise_3_a_tree_without_a_record_is_emptied_at_the_start(
    autojump_clock, factory, caplog
):
    trees = FakeTrees(lambda *_: Program(ignores_terminate=True, children=2), factory.world)
    place = trees.place("AR-9", "ar-9-impl", RunId("stray"), "/d")
    await trees.start(place, Command(argv=("x",), env={}, cwd="/"))
    assert factory.left() == ["ar-9-impl"]
    async with factory.daemon():
        assert factory.left() == []
    assert "a tree that no run owns emptied: stray, 3 processes" in caplog.text


async def test_adopted_runs_and_handoffs_are_no_strays(autojump_clock, factory):
    factory.put("AR-1")
    factory.put("AR-2")
    factory.script.parts |= {IMPL: [FOREVER], "ar-2-impl": [STUCK]}
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL, "ar-2-impl")
        await daemon.scheduler.kill(["AR-2"], "asked", None)
        await daemon.wait_for(lambda: bool(daemon.ledger.registry.handoffs))
        factory.kill_daemon()
    async with factory.daemon() as daemon:
        assert await daemon.reaper.empty_strays() == 0


# ------------------------------------------------------- both ways: leaves, records, pids


def replace_leaf(factory):
    """Put another directory where the only run has its leaf."""
    (life,) = factory.world.lives.values()
    life.place = replace(life.place, cgroup_inode=1)
    return life


async def test_a_started_run_is_remembered_with_the_inode_of_its_leaf(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        (life,) = factory.world.lives.values()
        assert daemon.record("AR-1").runs[IMPL].place == life.place
        assert factory.of_kind(RunStarting)[0].place.cgroup_inode is None
        assert life.place.cgroup_inode is not None
        assert factory.of_kind(RunStarted)[0].cgroup_inode == life.place.cgroup_inode
        factory.kill_daemon()
    async with factory.daemon() as daemon:
        assert daemon.record("AR-1").runs[IMPL].place == life.place, "replayed"


async def test_recovery_closes_a_record_without_leaf_with_what_the_status_file_says(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    (life,) = factory.world.lives.values()
    life.end(0, children_too=True)
    await factory.drain()
    emptied = factory.of_kind(RunEmptied)[0]
    assert emptied.result is RunResult.SUCCEEDED
    assert (emptied.report.emptied, emptied.report.signalled) == (True, ())
    assert factory.script.started == [IMPL, REVIEW]


async def test_recovery_closes_a_run_whose_leaf_is_anothers_and_leaves_that_alone(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    other = replace_leaf(factory)
    await factory.drain()
    lost = factory.of_kind(RunEmptied)[0]
    assert lost.result is RunResult.LOST
    assert lost.reason == "ar-1-impl was lost: leaf identity mismatch"
    assert lost.report.skipped == (Skipped(pid=0, reason="leaf identity mismatch"),)
    assert (other.left, other.signals) == (1, [])
    assert factory.script.started == [IMPL, IMPL, REVIEW]


async def test_a_handoff_whose_leaf_is_anothers_by_now_is_cleared_and_signals_nobody(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [STUCK]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(daemon.ledger.registry.handoffs))
        other = replace_leaf(factory)
        signals = list(other.signals)
        await daemon.wait_for(lambda: not daemon.ledger.registry.handoffs)
    (cleared,) = factory.of_kind(HandoffCleared)
    assert cleared.report.skipped == (Skipped(pid=0, reason="leaf identity mismatch"),)
    assert (other.left, other.signals) == (1, signals)


@pytest.mark.parametrize("seed", range(10))
async def test_promise_6_dying_again_and_again_loses_nothing_and_dispatches_nothing_twice(
    autojump_clock, factory, seed
):
    """One life after another, each dead after a few facts, until the issues are done."""
    chance = Random(seed)
    factory.put("AR-1")
    factory.put("AR-2")
    factory.script.parts |= {
        IMPL: [Program(status=0, after_s=5)],
        "ar-2-reviewer": [Program(status=10), DONE],
    }
    for _ in range(200):
        async with factory.daemon() as daemon:
            seq = daemon.ledger.registry.seq + chance.randint(1, 6)
            with trio.move_on_after(1000):
                await daemon.wait_for(lambda seq=seq, d=daemon: d.ledger.registry.seq >= seq)
            factory.kill_daemon()
        live = [life.place.agent for life in factory.world.lives.values() if life.left]
        assert len(live) == len(set(live)), "two runs of one agent"
        if len(factory.source.outcomes) == 2 and not live:
            break
    for key in ("AR-1", "AR-2"):
        assert [note.state for note in factory.source.outcomes[key]] == [S.DONE]
        assert factory.story(key).count("attempt-started") == 1
    assert Registry.replay(*factory.store.load()).counters.done == 2
    assert factory.store.held == set()


# ------------------------------------------------------------------------------------- handoffs


async def test_promise_1_a_tree_that_cannot_be_emptied_becomes_a_handoff_with_a_reason(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [STUCK]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
    assert factory.of_kind(RunEmptied) == []
    (handoff,) = factory.of_kind(HandoffMade)
    assert handoff.reason == "1 process is left: 99 (uninterruptible sleep)"
    assert not handoff.report.emptied


async def test_the_reaper_keeps_at_a_handoff_and_clears_it_by_proof(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [STUCK]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(daemon.ledger.registry.handoffs))
        await trio.sleep(1000)
        assert len(daemon.ledger.registry.handoffs) == 1
        heal(factory)
        await trio.sleep(61)
        assert daemon.ledger.registry.handoffs == {}
        assert daemon.ledger.registry.counters.reaped == 1
    assert factory.left() == []
    assert len(factory.of_kind(HandoffCleared)) == 1


async def test_a_handoff_survives_a_restart_and_is_cleared_by_the_next_daemon(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [STUCK]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
    heal(factory)
    async with factory.daemon() as daemon:
        assert len(daemon.ledger.registry.handoffs) == 1
        await daemon.wait_for(lambda: not daemon.ledger.registry.handoffs)
    assert factory.left() == []


async def test_a_name_that_a_handoff_holds_fails_the_attempt_with_a_clear_reason(
    autojump_clock, factory
):
    configure(factory, resume={"max_resumes": 3})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [
        Program(status=1, survivors=STUCK.survivors, children=1),
        DONE,
    ]
    daemon = await factory.drain()
    first, second = factory.of_kind(AttemptEnded)
    assert first.reason == (
        "ar-1-impl exited with 1 and cannot be resumed: "
        "1 process is left: 99 (uninterruptible sleep)"
    )
    assert second.reason is not None
    assert "ar-1-impl cannot start: the tree of its earlier run" in second.reason
    assert "is not proven empty yet" in second.reason
    assert factory.script.started == [IMPL], "nothing ran beside the old tree"
    assert daemon.state("AR-1") is S.PARKED


async def test_an_agent_may_start_again_once_its_old_tree_is_proven_empty(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [
        Program(status=1, survivors=STUCK.survivors, children=1),
        DONE,
    ]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        heal(factory)
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.script.started == [IMPL, IMPL, REVIEW]


async def test_handoffs_are_tried_with_growing_waits_and_a_silent_reaper_wakes_nobody(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [STUCK]
    tries = []
    async with factory.daemon() as daemon:
        adopt = daemon.trees.adopt

        async def watched(place, identity):
            tries.append(trio.current_time())
            return await adopt(place, identity)

        monkeypatch.setattr(daemon.trees, "adopt", watched)
        await daemon.wait_runs(IMPL)
        await trio.sleep(1000)
        assert tries == []
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(300)
    waits = [b - a for a, b in pairwise(tries)]
    assert waits[:6] == pytest.approx([2, 4, 8, 16, 32, 60])


@asynccontextmanager
async def handed_off(factory):
    """A daemon with one handoff, and the run that it is about."""
    factory.put("AR-1")
    factory.script.parts[IMPL] = [STUCK]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        (run,) = daemon.ledger.registry.handoffs
        yield daemon, run


async def test_a_handoff_survives_later_facts_of_its_issue_and_of_others(autojump_clock, factory):
    async with handed_off(factory) as (daemon, run):
        before = daemon.ledger.registry.handoffs[run]
        factory.source.take_away("AR-1")
        await daemon.wait_for(lambda: daemon.record("AR-1").left_ready)
        factory.put("AR-1")
        factory.put("AR-2")
        await daemon.wait_state("AR-2", S.DONE)
        await daemon.wait_state("AR-1", S.PARKED)  # its name is held
        assert factory.story("AR-1").count("attempt-started") == 3
        assert daemon.ledger.registry.handoffs == {run: before}
        assert Registry.replay(*factory.store.load()).handoffs == {run: before}


async def test_a_handoff_survives_stops_and_sudden_deaths(autojump_clock, factory):
    async with handed_off(factory) as (_, run):
        pass
    for sudden in (False, True, False):
        async with factory.daemon() as daemon:
            await trio.sleep(100)
            assert list(daemon.ledger.registry.handoffs) == [run]
            if sudden:
                factory.kill_daemon()
    heal(factory)
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: not daemon.ledger.registry.handoffs)
    assert len(factory.of_kind(HandoffCleared)) == 1


async def test_an_older_handoff_is_kept_when_another_run_is_handed_off(autojump_clock, factory):
    factory.put("AR-2")
    factory.script.parts["ar-2-impl"] = [STUCK]
    async with handed_off(factory) as (daemon, run):
        await daemon.wait_runs("ar-2-impl")
        await daemon.scheduler.kill(["AR-2"], "asked", None)
        await daemon.wait_for(lambda: len(daemon.ledger.registry.handoffs) == 2)
        assert next(iter(daemon.ledger.registry.handoffs)) == run


async def test_a_write_that_fails_leaves_the_handoff_that_was_there(autojump_clock, factory):
    async with handed_off(factory) as (daemon, run):
        factory.store.refusal = "the disk is full"
        heal(factory)
        await trio.sleep(100)
        assert factory.left() == []
        assert list(daemon.ledger.registry.handoffs) == [run]
        assert list(Registry.replay(*factory.store.load()).handoffs) == [run]
        with pytest.raises(LedgerUnavailable, match="the disk is full"):
            await daemon.reaper.reap(dry_run=False)
        factory.store.refusal = None
        await daemon.wait_for(lambda: not daemon.ledger.registry.handoffs)
    assert len(factory.of_kind(HandoffCleared)) == 1


async def test_a_proof_that_can_no_longer_be_recorded_is_given_again_to_the_next_daemon(
    autojump_clock, factory, caplog
):
    async with handed_off(factory) as (daemon, run):
        factory.store.refusal = "the disk is full"
        heal(factory)
        await trio.sleep(100)
        daemon.ledger.give_up()  # as a daemon does that is told to stop
        await trio.sleep(1)
        assert f"{run} is proven empty, which could not be recorded" in caplog.text
        factory.store.refusal = None
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: not daemon.ledger.registry.handoffs)


async def test_protected_pids_are_never_recorded_as_ours(autojump_clock, factory):
    configure(factory, protect={"pids": (99,)})
    async with handed_off(factory) as (daemon, run):
        (life,) = factory.world.lives.values()
        assert daemon.ledger.registry.handoffs[run].identity == life.identity
        recorded = {fact.identity.pid for fact in factory.of_kind(RunStarted)}
        assert recorded == {life.identity.pid}
        assert [one.pid for one in factory.of_kind(HandoffMade)[0].report.skipped] == [99]


async def test_a_request_to_reap_does_now_what_the_next_round_would(autojump_clock, factory):
    async with handed_off(factory) as (daemon, run):
        trees = FakeTrees(lambda *_: Program(children=2), factory.world)
        stray = await trees.start(
            trees.place("AR-9", "ar-9-impl", RunId("ar-9-impl-0"), "/d"),
            Command(argv=("x",), env={}, cwd="/"),
        )
        foreseen = await daemon.reaper.reap(dry_run=True)
        assert [one.run for one in foreseen.reaped] == [run, "ar-9-impl-0"]
        assert len(factory.left()) == 2
        done = await daemon.reaper.reap(dry_run=False)
        assert (done.daemon, done.survivors) == ("alive", 1)
        assert stray.identity is not None
        assert [(one.agent, one.pids) for one in done.reaped] == [
            ("ar-9-impl", (stray.identity.pid,))
        ]
        assert [(one.agent, one.pid, one.reason) for one in done.skipped] == [
            (IMPL, 99, "uninterruptible sleep")
        ]
        heal(factory)
        assert [one.run for one in (await daemon.reaper.reap(dry_run=False)).reaped] == [run]
        assert daemon.ledger.registry.handoffs == {}
        nothing = await daemon.reaper.reap(dry_run=False)
        assert (nothing.reaped, nothing.skipped, nothing.survivors) == ((), (), 0)


async def test_strays_are_looked_for_at_every_interval_and_runs_that_start_meanwhile_are_none(
    autojump_clock, factory, monkeypatch
):
    configure(factory, reaper={"interval": 30.0})
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        list_strays = daemon.trees.list_strays
        moments = []

        def list_late(known):
            """List only once a run has begun that was not known when this was asked for."""
            moments.append(trio.current_time())
            return [*list_strays(known), *[life.place for life in daemon.trees.running()]]

        monkeypatch.setattr(daemon.trees, "list_strays", list_late)
        factory.put("AR-1")
        await daemon.wait_runs(IMPL)
        await trio.sleep(100)
        assert len(moments) == 3
        assert [b - a for a, b in pairwise(moments)] == [30.0, 30.0]
        assert factory.left() == [IMPL]


async def test_a_run_that_is_recorded_while_strays_are_listed_is_none(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        registry, late = daemon.ledger.registry, run_starting("late-1", "AR-1", "ar-1-late")

        def list_late(known):
            draft = Draft(registry)
            draft.add(late, 0.0)
            registry.accept(draft, registry.seq)
            return [late.place]

        monkeypatch.setattr(daemon.trees, "list_strays", list_late)
        assert await daemon.reaper.empty_strays() == 0


async def test_trees_that_cannot_be_listed_end_no_daemon(
    autojump_clock, factory, monkeypatch, caplog
):
    configure(factory, reaper={"interval": 30.0})

    def refuse(self, known):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(FakeTrees, "list_strays", refuse)
    async with factory.daemon() as daemon:
        await trio.sleep(100)
        with pytest.raises(FactoryError, match="Too many open files"):
            await daemon.reaper.reap(dry_run=False)
    assert "trees that no run owns cannot be listed" in caplog.text


async def test_a_long_sweep_is_no_silence_while_its_grace_lasts(autojump_clock, factory, nursery):
    configure(factory, stop={"grace": 300.0})
    ledger = Ledger(factory.store, Registry(), factory.clock)
    pulse = Pulse("reaper", 30.0)
    trees = FakeTrees(lambda *_: Program(ignores_terminate=True), factory.world)
    for n in range(3):
        place = trees.place("AR-9", "ar-9-impl", RunId(f"stray-{n}"), "/d")
        await trees.start(place, Command(argv=("x",), env={}, cwd="/"))
    reaper = Reaper(Settings(factory.config), ledger, trees, pulse)
    nursery.start_soon(reaper.empty_strays)
    for _ in range(29):
        await trio.sleep(10)
        assert not pulse.read().late
    assert len(factory.left()) == 3
    await trio.sleep(11)
    assert factory.left() == []


async def test_the_reaper_is_busy_only_while_it_reaps(autojump_clock, factory, nursery):
    ledger = Ledger(factory.store, Registry(), factory.clock)
    pulse = Pulse("reaper", 30.0)
    reaper = Reaper(Settings(Config()), ledger, FakeTrees(world=factory.world), pulse)
    await nursery.start(ledger.run)
    nursery.start_soon(reaper.run)
    await trio.sleep(10_000)
    assert not pulse.read().late


async def test_a_lost_exit_is_no_exit(autojump_clock, factory):
    """A tree that is adopted although its root ended with a status nobody knows."""
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, DONE]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    (life,) = factory.world.lives.values()
    life.exit = Exit(status=None, reason="lost in reboot")
    life.exited.set()
    await factory.drain()
    assert factory.of_kind(RunEmptied)[0].result is RunResult.LOST
    assert factory.source.outcomes["AR-1"][0].state is S.DONE
