"""What the service manager is told while the daemon lives."""

import pytest
import trio

from factoryd.flow.announcing import PATIENCE_S, Announcer
from factoryd.flow.pulse import Pulses
from tests.fakes.clock import TrioClock
from tests.fakes.heartbeat import FakeHeartbeatFile
from tests.fakes.notifier import FakeNotifier
from tests.unit.factories import factory
from tests.unit.samples import identity
from tests.unit.test_views import overview_of

__all__ = ["factory"]


class Parts:
    def __init__(self, daemon):
        self.notifier = FakeNotifier()
        self.pulses = Pulses(
            settings=daemon.settings,
            identity=identity(7),
            file=FakeHeartbeatFile(),
            notifier=self.notifier,
            clock=TrioClock(),
        )
        overview = overview_of(daemon, self.pulses)
        self.announcer = Announcer(
            self.notifier, overview, self.pulses, daemon.ledger, daemon.settings
        )

    def said(self, word):
        return [one for one in self.notifier.said if one.startswith(word)]


@pytest.fixture
async def parts(autojump_clock, factory, nursery):
    async with factory.daemon() as daemon:
        parts = Parts(daemon)
        nursery.start_soon(parts.announcer.run)
        yield parts


async def test_a_long_start_and_a_long_stop_ask_for_time_again_and_again(autojump_clock, parts):
    for state, extends in (("starting", True), ("running", False), ("stopping", True)):
        await parts.pulses.become(state)
        await trio.sleep(6)
        parts.notifier.said.clear()
        await trio.sleep(60)
        assert len(parts.said("extend 30")) == (12 if extends else 0), state


async def test_a_start_or_stop_without_progress_or_without_end_gets_no_more_time(
    autojump_clock, parts
):
    await parts.pulses.become("stopping")
    pulse = parts.pulses.declare("reaper", 30.0)
    with pulse.busy():
        await trio.sleep(60)
        parts.notifier.said.clear()
        await trio.sleep(60)
        assert parts.said("extend") == [], "a part is late"
    await trio.sleep(60)
    assert parts.said("extend")
    await trio.sleep(PATIENCE_S)
    parts.notifier.said.clear()
    await trio.sleep(60)
    assert parts.said("extend") == [], "it takes too long"


async def test_the_status_is_one_line_that_follows_what_no_fact_tells(autojump_clock, parts):
    await trio.sleep(1)
    assert parts.said("status")[-1] == "status starting: issues running: 0, slots free: 2"
    await parts.pulses.become("running")
    parts.announcer._settings.refuse(("f.toml: x: is unknown",))
    with parts.pulses.declare("reaper", 1.0).busy():
        await trio.sleep(10)
        await parts.pulses.become("running")  # a heartbeat is when it is noticed
        await trio.sleep(1)
        assert parts.said("status")[-1] == (
            "status issues running: 0, slots free: 2, degraded: reaper, "
            "the configuration file has mistakes"
        )
