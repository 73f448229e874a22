"""One agent of a stage: started, watched, resumed, emptied."""

from itertools import pairwise

import pytest
import trio

from factoryd.core.config import AgentConfig
from factoryd.core.events import AttemptEnded, RunEmptied, RunExited, RunResult, RunStarting
from factoryd.core.model import AgentState, IssueState, Skipped, Usage
from tests.fakes.trees import FakeTree, Program
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState
DONE, CRASH, FOREVER = Program(status=0), Program(status=1), Program()


def stalls_after(factory, seconds):
    agent = AgentConfig(kind="command", name="impl", command=("x",), stall_after=seconds)
    configure(factory, agents={"implementer": agent}, dispatch={"max_attempts": 1})


# ---------------------------------------------------------------------------------- promise 1


@pytest.mark.parametrize(
    "part",
    [
        Program(status=0, children=3),
        Program(status=1, children=3),
        Program(status=0, children=3, ignores_terminate=True),
        Program(children=3),
        Program(children=3, ignores_terminate=True),
    ],
    ids=["done", "crashed", "deaf", "running", "running and deaf"],
)
async def test_promise_1_leaving_an_agents_scope_means_its_tree_is_emptied(
    autojump_clock, factory, part
):
    configure(factory, dispatch={"max_attempts": 1, "time_limit": 100.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [part]
    await factory.drain()
    assert factory.left() == []
    runs = [one.run for one in factory.of_kind(RunStarting)]
    assert [one.run for one in factory.of_kind(RunEmptied)] == runs
    assert all(one.report.emptied for one in factory.of_kind(RunEmptied))


class Breaks:
    """Goes before a method and raises the first time it is called."""

    def __init__(self, then):
        self.times = 0
        self._then = then

    def __call__(self, *args, **kwargs):
        self.times += 1
        if self.times == 1:
            raise ZeroDivisionError("a bug")
        return self._then(*args, **kwargs)


async def test_promise_1_holds_when_following_the_output_breaks(autojump_clock, factory):
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(children=3)]
    async with factory.daemon() as daemon:
        daemon.follower.error = ZeroDivisionError("a bug")
        await daemon.wait_state("AR-1", S.PARKED)
        assert factory.left() == []
    assert "ZeroDivisionError" in str(factory.of_kind(AttemptEnded)[0].reason)


async def test_promise_1_holds_when_reading_the_rest_of_the_output_breaks(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(children=3)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        daemon.follower.drain = Breaks(daemon.follower.drain)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        assert factory.left() == []
        assert daemon.runner.live == {}
    assert factory.store.held == set()


async def test_promise_1_holds_when_reading_the_usage_breaks(autojump_clock, factory, monkeypatch):
    configure(factory, dispatch={"max_attempts": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(children=3)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        breaks = Breaks(Usage)
        monkeypatch.setattr(FakeTree, "usage", breaks)
        daemon.follower.write(IMPL)
        await daemon.wait_state("AR-1", S.PARKED)
        assert factory.left() == []
    assert factory.store.held == set()


async def test_a_full_disk_costs_no_agent_its_life(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.desk.full = True
        daemon.follower.write(IMPL, 10)
        await trio.sleep(100)
        assert factory.left() == [IMPL]
        factory.desk.full = False
        daemon.follower.write(IMPL, 10)
        assert list(factory.desk.followed.values()) == [20]


async def test_an_agent_is_stopped_children_and_all_before_its_name_is_free(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1, children=2, ignores_terminate=True), DONE]
    began = trio.current_time()
    await factory.drain()
    first, second = factory.script.moments[:2]
    assert second - first == pytest.approx(11), "the grace for its children, then the delay"
    assert factory.of_kind(RunEmptied)[0].report.signals == ("SIGTERM", "SIGKILL")
    assert trio.current_time() > began


async def test_the_exit_is_recorded_before_its_children_have_had_their_grace(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, children=2, ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.of_kind(RunExited)))
        run = daemon.record("AR-1").runs[IMPL]
        assert run.state is AgentState.EXITED
        assert run.exit is not None
        assert run.exit.status == 0
        assert factory.left() == [IMPL]
        await daemon.wait_state("AR-1", S.DONE)


# ------------------------------------------------------------------------------------- resumes


async def test_a_crashed_agent_is_resumed_after_the_delay_while_its_budget_lasts(
    autojump_clock, factory
):
    configure(factory, resume={"max_resumes": 3, "delay": 7.0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH, CRASH, CRASH, DONE]
    await factory.drain()
    moments = factory.script.moments[:4]
    waits = [b - a for a, b in pairwise(moments)]
    assert waits == pytest.approx([7, 7, 7])
    assert [one.resumes for one in factory.of_kind(RunStarting)] == [0, 1, 2, 3, 0]
    assert factory.source.outcomes["AR-1"][0].state is S.DONE


async def test_each_agent_and_each_attempt_has_a_budget_of_its_own(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts |= {IMPL: [CRASH, DONE, CRASH, DONE], REVIEW: [CRASH, CRASH, CRASH, DONE]}
    await factory.drain()
    assert factory.source.outcomes["AR-1"][0].state is S.DONE
    assert factory.source.outcomes["AR-1"][0].attempts == 2


async def test_every_run_has_an_id_of_its_own(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [CRASH]
    await factory.drain()
    runs = [one.run for one in factory.of_kind(RunStarting)]
    assert len(set(runs)) == len(runs) == 4
    assert all(run.startswith(f"{IMPL}-") for run in runs)


# -------------------------------------------------------------------------------------- stalls


async def test_a_silent_agent_is_stalled_stopped_and_resumed_like_a_crashed_one(
    autojump_clock, factory
):
    stalls_after(factory, 60.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER, FOREVER]
    began = trio.current_time()
    await factory.drain()
    assert [one.result for one in factory.of_kind(RunEmptied)] == [RunResult.STALLED] * 2
    (ended,) = factory.of_kind(AttemptEnded)
    assert ended.reason == "ar-1-impl stalled"
    assert 120 <= trio.current_time() - began <= 250
    assert factory.left() == []


async def test_output_is_a_sign_of_life(autojump_clock, factory):
    stalls_after(factory, 60.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        for _ in range(20):
            await trio.sleep(50)
            daemon.follower.write(IMPL)
        assert factory.left() == [IMPL]
        await trio.sleep(61)
        assert factory.of_kind(RunEmptied)[0].result is RunResult.STALLED


async def test_cpu_time_is_a_sign_of_life(autojump_clock, factory, monkeypatch):
    stalls_after(factory, 60.0)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    idle = trio.Event()

    def usage(self):
        return Usage(processes=1, cpu_s=500.0 if idle.is_set() else trio.current_time() / 10)

    monkeypatch.setattr(FakeTree, "usage", usage)
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await trio.sleep(2000)
        assert factory.left() == [IMPL]
        idle.set()
        await trio.sleep(200)
        assert factory.of_kind(RunEmptied)[0].result is RunResult.STALLED


async def test_without_a_limit_nobody_stalls(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await trio.sleep(10_000)
        assert factory.left() == [IMPL]


# --------------------------------------------------------------------------------- what is seen


async def test_a_receipt_says_what_the_run_used_in_all(autojump_clock, factory):
    usage = Usage(processes=5, cpu_s=2.5, memory_bytes=1 << 20)
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=30, usage=usage, children=1)]
    daemon = await factory.drain()
    receipt = factory.of_kind(RunEmptied)[0].receipt
    assert receipt.wall_s == pytest.approx(30, abs=0.1)
    assert (receipt.cpu_s, receipt.peak_processes) == (2.5, 5)
    assert receipt.peak_memory_bytes == 1 << 20
    assert daemon.record("AR-1").peak_processes == 5


async def test_usage_is_read_at_most_once_a_second_however_often_it_is_asked_for(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    reads = []
    usage = FakeTree.usage

    def counted(self):
        reads.append(trio.current_time())
        return usage(self)

    monkeypatch.setattr(FakeTree, "usage", counted)
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await trio.sleep(100)
        assert reads == [], "a silent agent wakes nobody"
        for _ in range(20):
            await daemon.runner.sample()
            await trio.sleep(0.1)
        assert len(reads) == pytest.approx(2, abs=1)


async def test_output_is_followed_from_where_the_last_daemon_ended_and_drained_at_the_end(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        daemon.follower.write(IMPL, 1234)
        factory.kill_daemon()
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(daemon.runner.live))
        (live,) = daemon.runner.live.values()
        assert live.offset == 1234
        await daemon.wait_state("AR-1", S.DONE)
        assert live.record.run in daemon.follower.drained


async def test_a_run_is_over_only_once_all_of_its_output_is_passed_on(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=1)]
    stories = []
    async with factory.daemon() as daemon:
        drain = daemon.follower.drain

        async def watched(place, progress):
            stories.append(factory.story("AR-1")[-1])
            await drain(place, progress)

        daemon.follower.drain = watched
        await daemon.wait_state("AR-1", S.DONE)
    assert stories == ["run-exited", "run-exited"]


async def test_who_waits_for_more_output_learns_of_it_and_of_the_end(
    autojump_clock, factory, nursery
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100)]
    seen = []
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        (live,) = daemon.runner.live.values()

        async def watch():
            while not live.closed:
                await live.wait_beyond(live.offset)
                seen.append((live.offset, live.closed))

        nursery.start_soon(watch)
        await trio.sleep(10)
        daemon.follower.write(IMPL, 10)
        await trio.sleep(10)
        assert seen == [(10, False)]
        await daemon.wait_state("AR-1", S.DONE)
    assert seen == [(10, False), (10, True)]
    assert daemon.runner.live == {}


async def test_the_configured_signal_order_and_protection_reach_the_tree(
    autojump_clock, factory, monkeypatch
):
    configure(factory, stop={"signal": "SIGINT"}, protect={"pids": (7,), "commands": ("sshd",)})
    policies = []
    terminate = FakeTree.terminate

    async def watched(self, policy):
        policies.append(policy)
        await terminate(self, policy)

    monkeypatch.setattr(FakeTree, "terminate", watched)
    factory.put("AR-1")
    await factory.drain()
    assert {one.signal for one in policies} == {"SIGINT"}
    assert {one.protected_pids for one in policies} == {frozenset({7})}
    assert {one.protected_commands for one in policies} == {frozenset({"sshd"})}


async def test_a_handoff_tells_at_most_a_few_of_many_survivors(autojump_clock, factory):
    many = tuple(Skipped(pid=n, reason="D") for n in range(100, 200))
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(survivors=many)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_for(lambda: bool(daemon.ledger.registry.handoffs))
        (handoff,) = daemon.ledger.registry.handoffs.values()
    assert handoff.reason.startswith("100 processes are left: 100 (D), ")
    assert len(handoff.reason) < 100
