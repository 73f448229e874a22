"""No signal without proof: handles are opened on exactly the process that was meant."""

import os
import signal
from functools import partial

import pytest
import trio
from msgspec import structs

from factoryd.adapters import pidfd
from factoryd.adapters.pidfd import (
    PidFd,
    Verdict,
    open_verified,
    verify,
    wait_ended,
)
from factoryd.adapters.proc import boot_id
from factoryd.adapters.witness import read_exit
from factoryd.core.model import ProcessIdentity

KEEPS_EXITS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)


def identify(pid: int) -> ProcessIdentity:
    identity = pidfd.identify(pid)
    assert identity is not None
    return identity


@pytest.fixture
async def sleeper():
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    yield process
    process.kill()
    await process.wait()


async def test_the_process_that_was_meant_is_signalled(sleeper):
    identity = identify(sleeper.pid)
    handle = open_verified(identity)
    assert isinstance(handle, PidFd)
    with handle:
        assert handle.send(signal.SIGTERM) is Verdict.SENT
        with trio.fail_after(5):
            await handle.wait_ended()
        await sleeper.wait()
        assert handle.send(signal.SIGTERM) is Verdict.GONE
    assert open_verified(identity) is Verdict.GONE


@pytest.mark.parametrize(
    "change", [{"start_ticks": 1}, {"boot_id": "another"}], ids=["recycled", "rebooted"]
)
async def test_another_process_with_that_pid_is_only_probed(sleeper, change):
    identity = structs.replace(identify(sleeper.pid), **change)
    assert open_verified(identity) is Verdict.MISMATCH
    assert verify(identity) is Verdict.MISMATCH
    with trio.fail_after(10):
        await wait_ended(identity)


async def test_a_zombie_counts_as_ended(sleeper):
    identity = identify(sleeper.pid)
    assert verify(identity) is None
    sleeper.kill()
    with trio.fail_after(5):
        await wait_ended(identity)
    assert identify(sleeper.pid) == identity  # nobody has waited for it yet
    assert open_verified(identity) is Verdict.GONE
    await sleeper.wait()
    assert pidfd.identify(sleeper.pid) is None


async def test_several_may_wait_for_one_process(sleeper):
    identity = identify(sleeper.pid)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait_ended, identity)
            await trio.testing.wait_all_tasks_blocked()
            sleeper.kill()


async def test_waiting_can_be_given_up(sleeper):
    with trio.move_on_after(0.01) as scope:
        await wait_ended(identify(sleeper.pid))
    assert scope.cancelled_caught


def test_a_process_can_tell_itself():
    own = identify(os.getpid())
    assert own.boot_id == boot_id()
    assert verify(own) is None
    handle = open_verified(own)
    assert isinstance(handle, PidFd)
    handle.close()


def test_a_pid_that_nobody_has_is_gone():
    identity = structs.replace(identify(os.getpid()), pid=2**22 - 1)
    assert open_verified(identity) is Verdict.GONE
    assert verify(identity) is Verdict.GONE


# ---------------------------------------------------------------- exits of strangers


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 7", 7), ("exit 0", 0), ("kill -9 $$", 137), ("kill -15 $$", 143)],
)
async def test_an_exit_is_told_by_a_pidfd_that_was_opened_before(monkeypatch, command, status):
    monkeypatch.setattr(pidfd, "_REAPED_WITHIN_S", 10)
    process = await trio.lowlevel.open_process(["/bin/sh", "-c", f"read x; {command}"], stdin=-1)
    handle = open_verified(identify(process.pid))
    assert isinstance(handle, PidFd)
    with handle:
        assert process.stdin is not None
        await process.stdin.aclose()
        await handle.wait_ended()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.wait)
            told = await handle.wait_status()
    assert told == (status if KEEPS_EXITS else None)


async def test_an_exit_that_nobody_reaps_is_not_waited_for_long(sleeper, monkeypatch):
    monkeypatch.setattr(pidfd, "_REAPED_WITHIN_S", 0.05)
    handle = open_verified(identify(sleeper.pid))
    assert isinstance(handle, PidFd)
    with handle:
        sleeper.kill()
        await handle.wait_ended()
        with trio.fail_after(5):
            assert await handle.wait_status() is None


async def test_an_exit_that_was_told_otherwise_is_not_asked_for(sleeper, monkeypatch):
    monkeypatch.setattr(pidfd, "_REAPED_WITHIN_S", 10)
    identity = identify(sleeper.pid)
    asked = []

    def is_told(told):
        asked.append(told)
        return told

    async def wait(*, told):
        status = await wait_ended(identity, is_told=partial(is_told, told))
        assert status == (137 if KEEPS_EXITS and not told else None)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(wait, told=True))
            nursery.start_soon(partial(wait, told=False))
            await trio.testing.wait_all_tasks_blocked()
            sleeper.kill()
            await sleeper.wait()
    assert sorted(asked) == [False, True]


def test_a_kernel_that_keeps_no_exits_says_so_by_an_error():
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="ioctl"):
            read_exit(reader)
    finally:
        os.close(reader)
        os.close(writer)
