"""Following one source: asked when something changed, at least once in a poll interval."""

import pytest
import trio

from factoryd.core.config import Config, FactoryConfig
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Problem
from factoryd.flow.pulse import Pulse
from factoryd.flow.settings import Settings
from factoryd.flow.source_follower import SourceFollower
from tests.fakes.source import FakeSource
from tests.unit.samples import issue


def polling(seconds):
    return Settings(Config(factory=FactoryConfig(poll_interval=seconds)))


@pytest.fixture
def source():
    return FakeSource("demo")


@pytest.fixture
def follower(source):
    return SourceFollower(source, polling(30.0), Pulse("source demo", 20.0))


def looks(source):
    return [name for name, _ in source.calls].count("list_ready")


async def test_a_change_is_seen_at_once_and_silence_after_a_poll_interval(
    autojump_clock, nursery, source, follower
):
    seen = []
    nursery.start_soon(follower.run, lambda: seen.append(trio.current_time()))
    await trio.sleep(10)
    source.put(issue("AR-1"))
    await trio.sleep(0.001)
    assert [one.key for one in follower.listing.issues] == ["AR-1"]
    await trio.sleep(100)
    assert seen == pytest.approx([0, 10, 40, 70, 100], abs=0.3)


async def test_many_changes_at_once_are_seen_together(autojump_clock, nursery, source, follower):
    nursery.start_soon(follower.run, lambda: None)
    await trio.sleep(1)
    before = looks(source)
    for n in range(100):
        source.put(issue(f"AR-{n}"))
        await trio.sleep(0.0001)
    await trio.sleep(1)
    assert len(follower.listing.issues) == 100
    assert looks(source) - before <= 3


async def test_a_source_that_fails_keeps_its_old_listing_and_is_asked_again(
    autojump_clock, nursery, source, follower, caplog
):
    caplog.set_level("INFO")
    source.put(issue("AR-1"))
    nursery.start_soon(follower.run, lambda: None)
    await trio.sleep(1)
    assert follower.complete
    source.failure = "not mounted"
    source.touch()
    await trio.sleep(20)
    assert follower.trouble == "not mounted"
    assert not follower.complete
    assert [one.key for one in follower.listing.issues] == ["AR-1"]
    assert looks(source) == pytest.approx(6, abs=1), "every few seconds"
    assert caplog.text.count("source demo failed: not mounted") == 1
    source.failure = None
    await trio.sleep(10)
    assert follower.trouble is None
    assert follower.complete
    assert caplog.text.count("source demo works again") == 1


async def test_a_problem_is_reported_once_by_its_place_and_again_when_it_comes_back(
    autojump_clock, source, follower, caplog
):
    bad = Problem(where="ready/x.md:3", reason="no title")
    source.problems = [bad]
    for _ in range(3):
        await follower.ask()
    assert caplog.text.count("source demo: ready/x.md:3: no title") == 1
    source.problems = []
    await follower.ask()
    source.problems = [bad]
    await follower.ask()
    assert caplog.text.count("source demo: ready/x.md:3: no title") == 2


@pytest.mark.parametrize("error", [SourceFailed("gone deaf"), ZeroDivisionError("a bug")])
async def test_a_source_that_cannot_tell_changes_is_polled(
    autojump_clock, nursery, source, follower, error
):
    async def deaf():
        raise error

    source.wait_change = deaf
    nursery.start_soon(follower.run, lambda: None)
    await trio.sleep(95)
    assert looks(source) == 4
    assert follower.trouble is None


async def test_an_error_inside_a_source_is_its_trouble_and_not_the_daemons(
    autojump_clock, nursery, source, follower, caplog
):
    async def broken():
        raise ZeroDivisionError("a bug")

    list_ready, source.list_ready = source.list_ready, broken
    nursery.start_soon(follower.run, lambda: None)
    await trio.sleep(1)
    assert follower.trouble == "an error inside factoryd: ZeroDivisionError('a bug')"
    assert "Traceback" in caplog.text
    source.list_ready = list_ready
    await trio.sleep(10)
    assert follower.trouble is None


async def test_promise_8_a_source_that_hangs_is_late_and_one_that_waits_is_not(
    autojump_clock, nursery, source
):
    pulse = Pulse("source demo", 20.0)
    follower = SourceFollower(source, polling(3600.0), pulse)
    nursery.start_soon(follower.run, lambda: None)
    await trio.sleep(3000)
    assert not pulse.read().late
    gate = trio.Event()
    source.before = lambda _: gate
    source.touch()
    await trio.sleep(30)
    assert pulse.read().late
    gate.set()
    await trio.sleep(1)
    assert not pulse.read().late


async def test_a_source_is_looked_at_again_at_once_and_by_the_newest_interval(
    autojump_clock, nursery, source
):
    settings, seen = polling(3600.0), []
    follower = SourceFollower(source, settings, Pulse("source demo", 20.0))
    nursery.start_soon(follower.run, lambda: seen.append(trio.current_time()))
    await trio.sleep(10)
    settings.replace(polling(30.0).config)
    follower.look_again()
    await trio.sleep(100)
    assert [moment - seen[0] for moment in seen] == pytest.approx([0, 10, 40, 70, 100], abs=0.3)


async def test_a_source_that_is_left_is_not_asked_again_and_lets_go(
    autojump_clock, nursery, source, follower
):
    nursery.start_soon(follower.run, lambda: None)
    await trio.sleep(1)
    assert source.watching
    follower.stop()
    await trio.sleep(1000)
    assert looks(source) == 1
    assert not source.watching


async def test_what_is_ready_and_what_was_closed_are_known_together(
    autojump_clock, nursery, source
):
    """Else what is ready again after its end would be ended by what was known before."""
    claimed = [source.put(issue("AR-1"))]
    source.take_away("AR-1")
    slow = trio.Event()
    source.before = {"find_closed": slow}.get
    settings = polling(30.0)
    follower = SourceFollower(source, settings, Pulse("source demo", 20.0), lambda: claimed)
    source.put(issue("AR-2"))
    nursery.start_soon(follower.ask)
    await trio.sleep(1)
    assert (follower.listing.issues, follower.complete) == ((), False)
    slow.set()
    await trio.sleep(1)
    assert [one.key for one in follower.listing.issues] == ["AR-2"]
