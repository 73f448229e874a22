"""The configuration in force: replaced in one place, heard of by who sleeps by it."""

import trio
from msgspec.structs import replace

from factoryd.core.config import Config, ReaperConfig
from factoryd.flow.settings import Settings


def every(seconds):
    return Config(reaper=ReaperConfig(interval=seconds))


async def slept(settings, moments):
    await settings.sleep(lambda config: config.reaper.interval)
    moments.append(trio.current_time())


async def test_who_sleeps_wakes_by_the_newest_configuration(autojump_clock, nursery):
    settings, moments = Settings(every(3600.0)), list[float]()
    began = trio.current_time()
    nursery.start_soon(slept, settings, moments)
    await trio.sleep(10)
    settings.replace(every(7200.0))
    await trio.sleep(10)
    settings.replace(every(60.0))
    await trio.sleep(100)
    assert [moment - began for moment in moments] == [60]


async def test_who_has_slept_longer_than_is_configured_now_wakes_at_once(autojump_clock, nursery):
    settings, moments = Settings(every(3600.0)), list[float]()
    began = trio.current_time()
    nursery.start_soon(slept, settings, moments)
    await trio.sleep(100)
    settings.replace(every(60.0))
    await trio.sleep(1)
    assert [moment - began for moment in moments] == [100]


async def test_a_configuration_that_is_in_force_has_no_mistakes(autojump_clock, nursery):
    settings = Settings(every(1.0))
    settings.mistakes = ("f: k: wrong",)
    heard = trio.Event()

    async def wait():
        await settings.wait_replaced()
        heard.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not heard.is_set()
    new = replace(settings.config)
    settings.replace(new)
    await heard.wait()
    assert settings.config is new
    assert not settings.mistakes
