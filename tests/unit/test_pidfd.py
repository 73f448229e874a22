"""No signal without proof: handles are opened on exactly the process that was meant."""

import os
import signal

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
from factoryd.core.model import ProcessIdentity


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
    with trio.fail_after(1):
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
