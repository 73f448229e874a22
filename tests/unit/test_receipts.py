"""What is kept of a run: its receipt, and what it was killed for."""

import pytest
import trio
from msgspec.structs import replace

from factoryd.core.events import AttemptEnded, HandoffMade, RunEmptied, RunResult
from factoryd.core.model import IssueState, OutOfMemory, Skipped, Usage, Victim
from tests.fakes.clock import EPOCH
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, configure, factory

__all__ = ["factory"]

S = IssueState
LACK = OutOfMemory(
    kills=2, limit_bytes=64 << 20, victims=(Victim(name="cc1", pid=7), Victim(name="cc1", pid=9))
)
STARVED = Usage(processes=3, cpu_s=1.0, memory_bytes=4096, out_of_memory=LACK)


@pytest.fixture(autouse=True)
def once(factory):
    configure(factory, dispatch={"max_attempts": 1}, resume={"max_resumes": 0})
    factory.put("AR-1")


async def test_the_peaks_of_the_kernel_count_where_it_keeps_them(autojump_clock, factory):
    usage = Usage(
        processes=5, cpu_s=2.5, memory_bytes=1 << 20, peak_processes=9, peak_memory_bytes=1 << 30
    )
    factory.script.parts[IMPL] = [Program(status=0, usage=usage)]
    await factory.drain()
    receipt = factory.of_kind(RunEmptied)[0].receipt
    assert (receipt.peak_processes, receipt.peak_memory_bytes) == (9, 1 << 30)
    assert receipt.oom_kills == 0


async def test_pages_that_processes_share_do_not_add_up_to_more_than_the_kernels_peak(
    autojump_clock, factory
):
    usage = Usage(processes=5, memory_bytes=70 << 20, peak_processes=5, peak_memory_bytes=64 << 20)
    factory.script.parts[IMPL] = [Program(status=0, after_s=30, usage=usage)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.runner.sample()
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.of_kind(RunEmptied)[0].receipt.peak_memory_bytes == 64 << 20


async def test_an_agent_that_was_killed_for_lack_of_memory_is_reported_so(autojump_clock, factory):
    factory.script.parts[IMPL] = [Program(status=137, usage=STARVED)]
    await factory.drain()
    (emptied,) = factory.of_kind(RunEmptied)
    told = "ar-1-impl was killed for lack of memory (limit 64M): cc1, pid 7; cc1, pid 9"
    assert (emptied.result, emptied.reason) == (RunResult.CRASHED, told)
    assert emptied.receipt.oom_kills == 2
    (ended,) = factory.of_kind(AttemptEnded)
    assert ended.reason == told
    assert str(factory.source.outcomes["AR-1"][0].reason).endswith(told)


async def test_an_agent_that_failed_after_its_child_was_killed_is_reported_so(
    autojump_clock, factory
):
    factory.script.parts[IMPL] = [Program(status=2, usage=STARVED)]
    await factory.drain()
    (emptied,) = factory.of_kind(RunEmptied)
    assert emptied.reason == (
        "ar-1-impl exited with 2 after part of it was killed for lack of memory (limit 64M): "
        "cc1, pid 7; cc1, pid 9"
    )


async def test_a_run_that_succeeds_all_the_same_has_succeeded_and_its_receipt_tells_of_kills(
    autojump_clock, factory
):
    factory.script.parts[IMPL] = [Program(status=0, usage=STARVED)]
    await factory.drain()
    emptied = factory.of_kind(RunEmptied)[0]
    assert (emptied.result, emptied.reason) == (RunResult.SUCCEEDED, None)
    assert emptied.receipt.oom_kills == 2


async def test_a_run_that_ended_while_nobody_looked_has_a_receipt_up_to_its_end(
    autojump_clock, factory
):
    usage = Usage(processes=4, cpu_s=3.0, memory_bytes=1, peak_processes=4, ended_at=EPOCH + 20)
    factory.script.parts[IMPL] = [Program(usage=usage)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    (life,) = factory.world.lives.values()
    life.end(0)
    await trio.sleep(1000)
    await factory.drain()
    receipt = factory.of_kind(RunEmptied)[0].receipt
    assert receipt.wall_s == pytest.approx(20, abs=1)
    assert (receipt.cpu_s, receipt.peak_processes) == (3.0, 4)


async def test_a_run_that_nobody_attends_any_more_has_a_receipt(autojump_clock, factory):
    usage = replace(STARVED, peak_processes=9)
    deaf = Program(ignores_terminate=True, usage=usage)
    factory.script.parts[IMPL] = [deaf]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", 100.0)
        await daemon.wait_state("AR-1", S.STOPPING)
        factory.kill_daemon()
    assert factory.of_kind(RunEmptied) == []
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CANCELLED)
    (emptied,) = factory.of_kind(RunEmptied)
    assert (emptied.result, emptied.reason) == (RunResult.STOPPED, "ar-1-impl was stopped")
    assert (emptied.receipt.cpu_s, emptied.receipt.peak_processes) == (1.0, 9)
    assert emptied.receipt.peak_memory_bytes is None, "nobody looked, and nothing is no peak"
    assert emptied.receipt.oom_kills == 2


async def test_a_run_that_is_handed_off_has_a_receipt_of_what_it_used_until_then(
    autojump_clock, factory
):
    stuck = (Skipped(pid=99, reason="uninterruptible sleep"),)
    usage = Usage(processes=2, cpu_s=4.0, memory_bytes=5)
    factory.script.parts[IMPL] = [Program(survivors=stuck, usage=usage)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
    (handoff,) = factory.of_kind(HandoffMade)
    assert handoff.receipt is not None
    assert (handoff.receipt.cpu_s, handoff.receipt.peak_processes) == (4.0, 2)
    assert daemon.record("AR-1").runs[IMPL].receipt == handoff.receipt
