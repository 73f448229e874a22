"""Signs of progress, and the heartbeat they feed."""

import math
from contextlib import suppress

import pytest
import trio

from factoryd.core.config import Config, HeartbeatConfig
from factoryd.core.errors import LedgerUnavailable
from factoryd.core.registry import Registry
from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulses
from factoryd.flow.settings import Settings
from tests.fakes.clock import EPOCH, TrioClock
from tests.fakes.heartbeat import FakeHeartbeatFile
from tests.fakes.ledger_store import FakeStore
from tests.fakes.notifier import FakeNotifier
from tests.fakes.threads import run_inline
from tests.unit.samples import claimed, identity


class Parts:
    def __init__(self):
        self.file, self.notifier = FakeHeartbeatFile(), FakeNotifier()
        beat = HeartbeatConfig(interval=15.0, stale_after=60.0)
        self.settings = Settings(Config(heartbeat=beat))
        self.pulses = Pulses(
            settings=self.settings,
            identity=identity(7),
            file=self.file,
            notifier=self.notifier,
            clock=TrioClock(),
        )


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch):
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


@pytest.fixture
def parts():
    return Parts()


async def test_a_part_that_waits_for_something_to_do_is_never_late(autojump_clock, parts):
    pulse = parts.pulses.declare("scheduler", 30.0)
    await trio.sleep(80_000)
    assert not pulse.read().late
    assert parts.pulses.late() == ()


async def test_a_part_that_is_at_one_thing_for_too_long_is_late_and_named(autojump_clock, parts):
    parts.pulses.declare("idle", 30.0)
    pulse = parts.pulses.declare("scheduler", 30.0)
    with pulse.busy():
        await trio.sleep(30)
        assert parts.pulses.late() == ()
        await trio.sleep(0.5)
        assert parts.pulses.late() == ("scheduler",)
        assert pulse.read().silent_s == 30.5
    assert parts.pulses.late() == ()


async def test_one_thing_that_hangs_is_not_hidden_by_others_that_go_on(autojump_clock, parts):
    pulse = parts.pulses.declare("control", 30.0)
    with pulse.busy():
        for _ in range(4):
            with pulse.busy():
                await trio.sleep(10)
        assert pulse.read().late


async def test_work_that_fails_is_over_too(autojump_clock, parts):
    pulse = parts.pulses.declare("reaper", 30.0)
    with pytest.raises(ValueError, match="x"), pulse.busy():
        raise ValueError("x")
    await trio.sleep(100)
    assert not pulse.read().late


async def test_promise_8_the_watchdog_is_fed_only_while_every_part_makes_progress(
    autojump_clock, parts, nursery
):
    pulse = parts.pulses.declare("source demo", 20.0)
    await nursery.start(parts.pulses.run)
    await trio.sleep(31)
    assert parts.notifier.said == ["alive"] * 3
    with pulse.busy():
        await trio.sleep(60)
    late = len(parts.notifier.said)
    assert late == 4, "the beat at 45 s came in time, those at 60, 75 and 90 s did not"
    assert [beat.progress for beat in parts.file.beats] == [1, 2, 3, 4, 4, 4, 4]
    await trio.sleep(20)
    assert len(parts.notifier.said) == late + 1


async def test_a_heartbeat_says_who_beats_in_which_state_and_when(autojump_clock, parts, nursery):
    assert parts.pulses.age_s is None
    await nursery.start(parts.pulses.run)
    await trio.sleep(5)
    await parts.pulses.become("running")
    await trio.sleep(2)
    first, second = parts.file.beats
    assert (first.status, second.status) == ("starting", "running")
    assert (second.pid, second.start_ticks, second.boot_id) == (7, 7, "boot")
    assert (second.interval_s, second.stale_after_s) == (15.0, 60.0)
    assert second.wall - EPOCH == second.boottime
    assert second.boottime - first.boottime == pytest.approx(5)
    assert parts.pulses.age_s == pytest.approx(2)


async def test_a_heartbeat_file_that_cannot_be_written_stops_nothing(
    autojump_clock, parts, nursery, caplog
):
    parts.file.failure = OSError(28, "No space left on device")
    await nursery.start(parts.pulses.run)
    await trio.sleep(16)
    assert parts.notifier.said == ["alive", "alive"]
    assert "heartbeat file cannot be written" in caplog.text


async def test_lateness_is_reported_once_and_so_is_its_end(autojump_clock, parts, nursery, caplog):
    caplog.set_level("INFO")
    pulse = parts.pulses.declare("scheduler", 10.0)
    await nursery.start(parts.pulses.run)
    with pulse.busy():
        await trio.sleep(100)
    await trio.sleep(100)
    assert caplog.text.count("scheduler makes no progress") == 1
    assert caplog.text.count("scheduler makes progress again") == 1


async def test_work_whose_parts_get_done_is_not_late_however_long_it_takes(autojump_clock, parts):
    pulse = parts.pulses.declare("reaper", 30.0)
    with pulse.busy() as go_on:
        for _ in range(10):
            await trio.sleep(29)
            assert not pulse.read().late
            go_on()
        await trio.sleep(31)
        assert pulse.read().late


async def test_a_wait_that_is_meant_is_no_silence(autojump_clock, parts):
    pulse = parts.pulses.declare("reaper", 30.0)
    with pulse.busy(600.0) as go_on:
        await trio.sleep(629)
        assert not pulse.read().late
        assert pulse.read().silent_s == 29
        go_on()
        assert pulse.read().silent_s == 0
        await trio.sleep(631)
        assert pulse.read().late
    assert not pulse.read().late


async def test_whoever_is_held_up_from_outside_has_all_its_time_from_then_on(autojump_clock, parts):
    held_up_at = [-math.inf]
    pulse = parts.pulses.declare("scheduler", 30.0, lambda: held_up_at[0])
    with pulse.busy():
        await trio.sleep(20)
        held_up_at[0] = trio.current_time()
        await trio.sleep(30)
        assert parts.pulses.late() == ()
        await trio.sleep(0.5)
        assert parts.pulses.late() == ("scheduler",)
    held_up_at[0] = 0.0
    with pulse.busy():
        assert pulse.read().silent_s == 0.0


async def test_a_full_disk_is_waited_for_and_no_reason_to_restart(autojump_clock, parts, nursery):
    store = FakeStore()
    ledger = Ledger(store, Registry.replay(*store.load()), TrioClock())
    pulse = parts.pulses.declare("scheduler", 30.0, lambda: ledger.refused_at)
    await nursery.start(ledger.run)
    await nursery.start(parts.pulses.run)
    store.refusal = "database or disk is full"
    nursery.start_soon(ledger.record, claimed("AR-1"))
    with pulse.busy():
        await trio.sleep(295)
        late, trouble, fed = parts.pulses.late(), ledger.trouble, len(parts.notifier.said)
        store.refusal = None
        await ledger.wait_beyond(0)
    assert (late, trouble) == ((), "database or disk is full")
    assert fed == 20  # every 15 s from the beginning on
    nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_disk_that_gives_no_answer_at_all_makes_whoever_records_late(
    autojump_clock, parts, nursery
):
    store = FakeStore()
    ledger = Ledger(store, Registry.replay(*store.load()), TrioClock())  # which nobody serves
    pulse = parts.pulses.declare("scheduler", 30.0, lambda: ledger.refused_at)

    async def record():
        with pulse.busy(), suppress(LedgerUnavailable):
            await ledger.record(claimed("AR-1"))

    nursery.start_soon(record)
    await trio.sleep(31)
    assert parts.pulses.late() == ("scheduler",)
    ledger.give_up()
    await nursery.start(ledger.run)
    nursery.cancel_scope.cancel(reason="the test is over")


async def test_the_watchdog_is_fed_in_time_however_rarely_the_heartbeat_is_written(
    autojump_clock, nursery, parts
):
    parts.notifier.watchdog_s = 9.0
    await nursery.start(parts.pulses.run)
    await trio.sleep(0.5)
    parts.notifier.said.clear()
    await trio.sleep(90)
    assert parts.notifier.said.count("alive") == 30


async def test_a_new_interval_holds_at_once(autojump_clock, nursery, parts):
    await nursery.start(parts.pulses.run)
    await trio.sleep(1)
    parts.settings.replace(Config(heartbeat=HeartbeatConfig(interval=2.0, stale_after=8.0)))
    parts.notifier.said.clear()
    await trio.sleep(20)
    assert parts.notifier.said.count("alive") == 10


async def test_a_part_that_is_no_more_is_not_late(autojump_clock, parts):
    pulse = parts.pulses.declare("source x", 30.0)
    with pulse.busy():
        await trio.sleep(100)
        assert parts.pulses.late() == ("source x",)
        parts.pulses.forget(pulse)
        assert parts.pulses.late() == ()
