"""Who gets a signal, in which order: the plan is pure, the delivery is to real processes."""

import errno
import os
import signal
import sys
from collections.abc import Collection

import pytest
import trio

from factoryd.adapters.pidfd import identify
from factoryd.adapters.proc import Stat, read_stat
from factoryd.adapters.tree_stop import deliver, plan_stop, protection
from factoryd.core.model import Skipped, StopOrder, StopPolicy

CHILDREN_FIRST, ROOT_FIRST = StopOrder.CHILDREN_FIRST, StopOrder.ROOT_FIRST


def tree(**parents: int) -> dict[int, Stat]:
    """Return members by `p<pid>=<parent>`."""
    return chain({int(name[1:]): ppid for name, ppid in parents.items()})


def chain(parents: dict[int, int]) -> dict[int, Stat]:
    return {
        pid: Stat(pid=pid, state="S", ppid=ppid, session=1, cpu_ticks=0, threads=1, start_ticks=pid)
        for pid, ppid in parents.items()
    }


def order(members, root, how=CHILDREN_FIRST, protected=()):
    plan = plan_stop(members, root, how, lambda pid: pid in protected)
    return [stat.pid for stat in plan.targets], {skip.pid: skip.reason for skip in plan.skipped}


def test_every_process_comes_after_its_children_and_the_root_last():
    members = tree(p10=1, p11=10, p12=11, p13=10, p20=1, p21=20)
    pids, skipped = order(members, 10)
    assert sorted(pids) == sorted(members)
    assert skipped == {}
    assert pids[-1] == 10
    for pid, stat in members.items():
        if stat.ppid in members:
            assert pids.index(pid) < pids.index(stat.ppid)


def test_root_first_is_the_reverse():
    members = tree(p10=1, p11=10, p12=11, p20=1)
    assert order(members, 10, ROOT_FIRST)[0] == order(members, 10)[0][::-1]
    assert order(members, 10, ROOT_FIRST)[0][0] == 10


def test_a_tree_without_its_root_is_stopped_all_the_same():
    assert sorted(order(tree(p11=10, p12=11, p13=1), None)[0]) == [11, 12, 13]


def test_what_is_below_a_protected_process_is_left_alone():
    members = tree(p10=1, p11=10, p12=11, p13=12, p14=10)
    pids, skipped = order(members, 10, protected={11})
    assert pids == [14, 10]
    below = "below the protected process 11"
    assert skipped == {11: "protected", 12: below, 13: below}


def test_protection_inside_protection_is_named_for_itself_or_above_it_only_once():
    pids, skipped = order(tree(p10=1, p11=10, p12=11), 10, protected={11, 12})
    assert pids == [10]
    assert set(skipped) == {11, 12}


def test_a_ring_of_parents_ends():
    # Possible where a parent's pid was reused between two reads.
    assert sorted(order(tree(p10=12, p11=10, p12=11), None)[0]) == [10, 11, 12]


@pytest.mark.parametrize("how", list(StopOrder))
def test_a_tree_5000_deep_and_one_5000_wide_are_planned(how):
    deep = chain({10: 1, **{pid: pid - 1 for pid in range(11, 5010)}})
    expected = sorted(deep, reverse=how is CHILDREN_FIRST)
    assert order(deep, 10, how)[0] == expected
    wide = chain({10: 1, **dict.fromkeys(range(11, 5010), 10)})
    assert len(order(wide, 10, how)[0]) == 5000


def test_the_daemon_and_its_ancestors_are_always_protected():
    is_protected = protection(StopPolicy(), None)
    assert is_protected(os.getpid())
    assert is_protected(os.getppid())
    assert is_protected(1)


async def test_names_protect_exactly_and_never_the_root():
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    try:
        for names, protected in (
            ({"sleep"}, True),
            ({"slee", "sleep2", "SLEEP", "/bin/sleep", ""}, False),
        ):
            policy = StopPolicy(protected_commands=frozenset(names))
            assert protection(policy, None)(process.pid) is protected
            assert protection(policy, process.pid)(process.pid) is False
    finally:
        process.kill()
        await process.wait()


async def test_a_signal_reaches_a_stopped_process_and_lets_it_act():
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    process.send_signal(signal.SIGSTOP)
    with trio.fail_after(5):
        while (stat := read_stat(process.pid)) is None or stat.state != "T":  # noqa: ASYNC110  the kernel announces no states
            await trio.sleep(0.001)
        done = deliver((stat,), signal.SIGTERM, set)
        assert await process.wait() == -signal.SIGTERM
    assert done.reached == {stat.identity: (signal.SIGTERM, signal.SIGCONT)}


async def test_a_process_that_is_not_who_it_was_gets_no_signal():
    process = await trio.lowlevel.open_process([sys.executable, "-c", "input()"], stdin=-1)
    try:
        stat = read_stat(process.pid)
        assert stat is not None
        other = Stat(
            pid=stat.pid,
            state="S",
            ppid=stat.ppid,
            session=stat.session,
            cpu_ticks=0,
            threads=1,
            start_ticks=stat.start_ticks + 1,
        )
        mismatch = (Skipped(pid=stat.pid, reason="pid identity mismatch"),)
        assert deliver((other,), signal.SIGKILL, set).skipped == mismatch
        assert deliver((stat,), signal.SIGKILL, lambda _: ()).skipped == mismatch
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()
        assert process.stdin is not None
        await process.stdin.aclose()
    gone = deliver((stat,), signal.SIGKILL, set)
    assert (gone.reached, gone.gone, gone.skipped) == ({}, (stat.identity,), ())
    assert identify(stat.pid) is None


@pytest.mark.parametrize("listed", [True, False])
async def test_a_process_that_ends_between_the_probe_and_the_signal_is_gone_and_not_skipped(listed):
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    stat = read_stat(process.pid)
    assert stat is not None

    def end_it(pids: Collection[int]) -> Collection[int]:  # asked after identities were verified
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED)
        return pids if listed else ()

    done = deliver((stat,), signal.SIGTERM, end_it)
    assert (done.reached, done.gone, done.skipped) == ({}, (stat.identity,), ())
    await process.wait()


async def test_nobody_gets_a_signal_while_nobody_can_tell_who_is_a_member():
    def nobody_can_tell(_: Collection[int]) -> Collection[int]:
        raise PermissionError(errno.EACCES, "Permission denied")

    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    try:
        stat = read_stat(process.pid)
        assert stat is not None
        done = deliver((stat,), signal.SIGKILL, nobody_can_tell)
        assert done.skipped == (Skipped(pid=stat.pid, reason="not signalled: Permission denied"),)
        assert (done.reached, done.gone) == ({}, ())
    finally:
        process.kill()
        await process.wait()


async def test_a_stopped_process_is_not_woken_to_be_killed():
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    process.send_signal(signal.SIGSTOP)
    with trio.fail_after(5):
        while (stat := read_stat(process.pid)) is None or stat.state != "T":  # noqa: ASYNC110  the kernel announces no states
            await trio.sleep(0.001)
    done = deliver((stat,), signal.SIGKILL, set)
    assert list(done.reached.values()) == [(signal.SIGKILL,)]
    assert await process.wait() == -signal.SIGKILL
