"""Marks tell runs apart, and a sweep finds who carries them without disturbing anyone."""

import os
import threading
import time

import pytest
import trio

from factoryd.adapters import sweep
from factoryd.adapters.proc import read_argv, read_stat
from factoryd.adapters.sweep import Sweeper, mark_of, read_mark
from factoryd.core.model import RunId


def test_every_run_of_every_daemon_has_a_mark_of_its_own():
    marks = {mark_of(name, RunId(run)) for name in ("a", "b") for run in ("1", "2", "a/1")}
    assert len(marks) == 6
    assert all(2**52 <= mark < 2**53 for mark in marks)
    assert mark_of("a", RunId("1")) == mark_of("a", RunId("1"))


@pytest.mark.parametrize(
    ("limit", "mark"), [("4503599627370497", 2**52 + 1), ("1048576", None), ("unlimited", None)]
)
async def test_only_a_limit_that_no_one_would_set_is_a_mark(limit, mark):
    command = ["/bin/sh", "-c", f"ulimit -m {limit} && exec /bin/sleep 600"]
    process = await trio.lowlevel.open_process(command)
    try:
        with trio.fail_after(5):
            while read_argv(process.pid)[:1] != ("/bin/sleep",):  # noqa: ASYNC110  a program of its own tells
                await trio.sleep(0.001)
        assert read_mark(process.pid) == mark
    finally:
        process.kill()
        await process.wait()


async def test_a_sweep_reaps_no_child_of_somebody_else():
    sweeper = Sweeper("n")
    sweeper.reach_back(0)
    process = await trio.lowlevel.open_process(["/bin/sh", "-c", "exit 3"])
    with trio.fail_after(5):
        while (stat := read_stat(process.pid)) is None or not stat.ended:  # noqa: ASYNC110  the kernel announces no states
            await trio.sleep(0.001)
    assert process.pid in sweeper.sweep().seen
    assert await process.wait() == 3


def test_a_quick_sweep_passes_over_those_out_of_reach():
    sweeper = Sweeper("n")
    own = read_stat(os.getpid())
    assert own is not None
    sweeper.reach_back(own.start_ticks)
    everyone = sweeper.sweep().seen
    assert os.getpid() in everyone
    assert 1 not in everyone
    assert os.getpid() in sweeper.sweep(quick=True).seen
    sweeper.reach_back(0)
    assert 1 in sweeper.sweep(quick=True).seen


def test_those_who_ask_at_the_same_time_share_a_sweep(monkeypatch):
    sweeper = Sweeper("n")
    first_may_end = threading.Event()
    sweeps: list[int] = []
    looks_at_the_clock: list[float] = []

    def list_slowly() -> list[int]:
        sweeps.append(1)
        assert first_may_end.wait(10)
        return []

    def now() -> float:
        moment = monotonic()
        looks_at_the_clock.append(moment)
        return moment

    monotonic = time.monotonic
    monkeypatch.setattr(sweep, "list_pids", list_slowly)
    monkeypatch.setattr(time, "monotonic", now)
    askers = [threading.Thread(target=sweeper.sweep) for _ in range(6)]
    askers[0].start()
    until = monotonic() + 10
    while not sweeps and monotonic() < until:
        time.sleep(0.001)
    for asker in askers[1:]:
        asker.start()
    while len(looks_at_the_clock) < 7 and monotonic() < until:  # 6 have asked, 1 has begun
        time.sleep(0.001)
    first_may_end.set()
    for asker in askers:
        asker.join()
    assert len(sweeps) == 2  # the first one's own, and one for all that asked during it
