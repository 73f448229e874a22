"""The hard cases of `ports.ProcessTrees`: who is who, what a stop reports, who will not end."""

import errno
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from factoryd.adapters import sweep
from factoryd.adapters.cgroup import Leaf, cgroup_of
from factoryd.adapters.pidfd import identify
from factoryd.core.model import Command, Exit, RunId, Signalled, Skipped, StopPolicy, StopReport
from tests.contract.test_process_trees_contract import (
    POLICY,
    assert_emptied,
    everywhere,
    in_cgroups,
    is_alive,
    kill_one,
    lab,
    list_children,
    list_processes,
    stop,
    wait_state,
    wait_text,
    with_processes,
)
from tests.fakes import recycler, stopper

__all__ = ["lab"]

NOBODY = 65534
BIG_TREE = Path(__file__).parent.parent / "fakes" / "big-tree"
KEEPS_EXITS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
MISMATCH = "pid identity mismatch"
LEAF_MISMATCH = "leaf identity mismatch"
pytestmark = pytest.mark.system


@asynccontextmanager
async def deaf_bystander():
    """A process that blocks every signal, so that any it was sent stays to be seen."""
    code = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals());"
        "os.execv('/bin/sleep', ['sleep', '600'])"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-I", "-S", "-c", code])
    try:
        await wait_text(f"/proc/{process.pid}/comm", "sleep")
        yield process
    finally:
        process.kill()
        await process.wait()


def assert_untouched(pid):
    status = recycler.read_signals(pid)
    assert (status["SigPnd"], status["ShdPnd"]) == ("0" * 16, "0" * 16)
    assert status["State"][0] in "SRD", "neither stopped nor ended"


def list_below(pid):
    children = list_children(pid)
    return [*children, *(each for child in children for each in list_below(child))]


async def run_stopper(told, *words):
    done = await trio.run_process(
        [sys.executable, "-m", "tests.fakes.stopper", *words],
        stdin=msgspec.json.encode(told),
        capture_stdout=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    return msgspec.json.decode(done.stdout, type=StopReport)


# ---------------------------------------------------------------- identity of leaves


@everywhere
async def test_a_started_tree_knows_the_inode_of_its_leaf(lab):
    tree = await lab.start("say:ready", "sleep")
    if lab.kind == "subreaper":
        assert tree.place.cgroup_inode is None
    elif lab.kind == "cgroup":
        assert tree.place.cgroup_inode == (await trio.Path(tree.place.cgroup).stat()).st_ino
    again = await lab.make_trees().adopt(
        msgspec.structs.replace(tree.place, cgroup_inode=None), tree.identity
    )
    assert again.place == tree.place
    assert_emptied(await stop(again), again)
    await tree.wait_exit()


@pytest.mark.parametrize("lab", ["cgroup", "fake"], indirect=True)
async def test_a_leaf_with_another_inode_is_none_of_the_runs(lab):
    first = await lab.start("child:2", "exit:7")
    await first.wait_exit()
    inode = first.place.cgroup_inode
    assert inode is not None
    place = msgspec.structs.replace(first.place, cgroup_inode=inode + 1)
    second = await lab.make_trees().adopt(place, first.identity)
    if lab.kind == "cgroup":
        assert await second.wait_exit() == Exit(status=7), "what the status file says"
        await trio.Path(place.directory, "status").unlink()
        second = await lab.make_trees().adopt(place, first.identity)
    assert await second.wait_exit() == Exit(status=None, reason=LEAF_MISMATCH)
    report = await stop(second)
    assert (report.emptied, report.signals, report.killed, report.signalled) == (True, (), 0, ())
    assert report.skipped == (Skipped(pid=0, reason=LEAF_MISMATCH),)
    report = await first.kill(POLICY)
    assert report.killed == 2, "they were all left alone"
    assert_emptied(report, first)


@in_cgroups
async def test_a_directory_that_took_a_leafs_place_is_neither_signalled_nor_removed(lab):
    first = await lab.start("exit:0")
    await first.wait_exit()
    assert_emptied(await first.kill(POLICY), first)
    await trio.Path(first.place.directory, "status").unlink()
    leaf = Path(first.place.cgroup)
    await trio.Path(leaf).mkdir(parents=True)
    try:
        async with deaf_bystander() as bystander:
            (leaf / "cgroup.procs").write_text(str(bystander.pid))
            for again in range(2):  # a second time, as the reaper does with what it is owed
                tree = await lab.make_trees().adopt(first.place, first.identity)
                assert await tree.wait_exit() == Exit(status=None, reason=LEAF_MISMATCH), again
                assert tree.usage().processes == 0
                report = await stop(tree)
                assert report.skipped == (Skipped(pid=0, reason=LEAF_MISMATCH),)
                assert (report.emptied, report.survivors, report.signals) == (True, 0, ())
            assert_untouched(bystander.pid)
            assert cgroup_of(bystander.pid) == str(leaf)
    finally:
        await Leaf(leaf).wait_empty()
        Leaf(leaf).remove()


@in_cgroups
async def test_a_leaf_that_is_replaced_while_it_is_held_is_left_alone(lab):
    leaf = Leaf(Path(lab.place().cgroup))
    leaf.create()
    path = leaf.procs.parent
    path.rmdir()
    path.mkdir()
    try:
        async with deaf_bystander() as bystander:
            leaf.procs.write_text(str(bystander.pid))
            assert leaf.list_pids() == []
            assert not leaf.is_populated()
            leaf.kill()
            with trio.fail_after(5):
                await leaf.wait_empty()
            leaf.remove()
            assert_untouched(bystander.pid)
        await Leaf(path).wait_empty()
    finally:
        leaf.remove()
        assert path.exists()
        Leaf(path).remove()


# ---------------------------------------------------------------- identity of processes


@with_processes
async def test_a_process_that_took_over_a_recorded_pid_is_skipped_by_reason_and_gets_no_signal(lab):
    async with deaf_bystander() as bystander:
        now = identify(bystander.pid)
        assert now is not None
        for change in ({"start_ticks": now.start_ticks - 1}, {"boot_id": "another boot"}):
            recorded = msgspec.structs.replace(now, **change)
            tree = await lab.trees.adopt(lab.place(), recorded)
            report = await stop(tree)
            assert report.skipped == (Skipped(pid=bystander.pid, reason=MISMATCH),)
            assert (report.signals, report.signalled, report.killed) == ((), (), 0)
            assert_emptied(report, tree)
        assert_untouched(bystander.pid)


@pytest.mark.parametrize("leaf", ["", "/sys/fs/cgroup/no-such-leaf"], ids=["subreaper", "cgroup"])
async def test_a_pid_that_the_kernel_really_gave_to_another_process_is_only_probed(leaf):
    """In a pid namespace of its own, where the next pid can be chosen."""
    words = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with trio.fail_after(25):
        done = await trio.run_process(
            [*words, sys.executable, "-m", "tests.fakes.recycler", leaf],
            capture_stdout=True,
            cwd=Path(__file__).parent.parent.parent,
        )
    seen = msgspec.json.decode(done.stdout, type=recycler.Seen)
    assert seen.taken.pid == seen.recorded.pid
    assert seen.taken.start_ticks > seen.recorded.start_ticks
    assert seen.exit.status is None
    assert seen.report.skipped == (Skipped(pid=seen.recorded.pid, reason=MISMATCH),)
    assert (seen.report.signals, seen.report.signalled, seen.report.killed) == ((), (), 0)
    assert seen.report.emptied
    assert seen.pending == ("0" * 16, "0" * 16)
    assert seen.state in "SRD", "neither stopped nor ended"


# ---------------------------------------------------------------- what a report says


@everywhere
async def test_a_report_names_every_process_with_its_signals_in_order(lab):
    tree = await lab.start("ignore:TERM", "child:3", "say:ready", "sleep")
    processes = list_processes(tree)
    report = await stop(tree, grace_s=0.1)
    *others, root = report.signalled
    assert {one.signals for one in others} == {("SIGTERM", "SIGKILL")}
    assert root.signals[0] == "SIGTERM"  # its child's death may end it before the second
    assert len(report.signalled) == report.killed == (4 if lab.kind == "fake" else 5)
    assert root.pid == tree.identity.pid, "the root is asked last"
    if lab.kind != "fake":
        assert sorted(one.pid for one in report.signalled) == sorted(processes)
    assert_emptied(report, tree)


@everywhere
async def test_a_report_of_a_kill_without_grace_names_every_process(lab):
    tree = await lab.start("child:3", "say:ready", "sleep")
    report = await tree.kill(POLICY)
    assert {one.signals for one in report.signalled} == {("SIGKILL",)}
    assert len(report.signalled) == report.killed
    assert_emptied(report, tree)


@with_processes
async def test_a_process_that_stopped_itself_is_woken_for_the_signal_and_the_report_says_so(lab):
    tree = await lab.start("say:ready", "stop")
    [agent] = list_children(tree.identity.pid)
    await wait_state(agent, "T")
    report = await stop(tree)
    got = {one.pid: one.signals for one in report.signalled}
    assert got[agent] == ("SIGTERM", "SIGCONT")
    assert got.get(tree.identity.pid) in (None, ("SIGTERM",)), "None: it ended with its agent"
    assert report.signals == ("SIGTERM",)
    assert_emptied(report, tree)


@with_processes
async def test_a_process_that_stopped_itself_is_killed_without_being_woken(lab):
    tree = await lab.start("say:ready", "stop")
    [agent] = list_children(tree.identity.pid)
    await wait_state(agent, "T")
    report = await tree.kill(POLICY)
    assert Signalled(pid=agent, signals=("SIGKILL",)) in report.signalled
    assert_emptied(report, tree)


# ---------------------------------------------------------------- who will not be listed or signalled


@with_processes
async def test_a_child_list_that_cannot_be_read_is_an_error_and_never_no_children(lab, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    tree = await lab.start("child:2", "say:ready", "sleep")
    with monkeypatch.context() as patch:
        patch.setattr(Leaf, "list_pids", refuse)
        patch.setattr(sweep, "list_pids", refuse)
        report = await stop(tree, grace_s=0.2)
    assert (report.emptied, report.survivors, report.signals) == (False, 1, ())
    reasons = {skip.pid: skip.reason for skip in report.skipped}
    error = "the processes of the tree cannot be listed: Too many open files"
    assert reasons[tree.identity.pid] == error
    assert len(list_processes(tree)) == 4, "nobody was signalled"
    assert_emptied(await tree.kill(POLICY), tree)


@in_cgroups
async def test_emptiness_that_cannot_be_told_is_no_proof(lab, monkeypatch):
    async def refuse(_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("factoryd.adapters.run_tree.PROOF_BOUND_S", 1)
    tree = await lab.start("child:1", "exit:0")
    await tree.wait_exit()
    with monkeypatch.context() as patch:
        patch.setattr(Leaf, "wait_empty", refuse)
        report = await stop(tree, grace_s=0.1)
    assert not report.emptied
    reason = "it cannot be told whether the tree is empty: Too many open files"
    assert Skipped(pid=0, reason=reason) in report.skipped
    assert_emptied(await tree.kill(POLICY), tree)


@in_cgroups
async def test_processes_that_are_not_shown_are_killed_with_their_leaf(lab, monkeypatch):
    tree = await lab.start("setsid", "say:ready", "sleep")
    kill_one(tree.identity.pid)
    await tree.wait_exit()
    with monkeypatch.context() as patch:
        patch.setattr(Leaf, "list_pids", lambda _: [])
        report = await tree.kill(POLICY)
    assert_emptied(report, tree)


@with_processes
async def test_a_process_that_ends_after_the_probe_counts_as_ended(lab, monkeypatch):
    real = signal.pidfd_send_signal

    def come_too_late(fd, _):
        real(fd, signal.SIGKILL)
        raise ProcessLookupError(errno.ESRCH, "No such process")

    tree = await lab.start("child:2", "say:ready", "sleep")
    monkeypatch.setattr(signal, "pidfd_send_signal", come_too_late)
    report = await stop(tree)
    assert (report.signals, report.signalled, report.skipped) == ((), (), ())
    assert report.killed == 4
    assert_emptied(report, tree)


@with_processes
async def test_a_process_that_may_not_be_signalled_is_a_survivor_with_a_reason(lab, daemon_name):
    tree = await lab.start("child:1", "say:ready", "sleep")
    processes = list_processes(tree)
    told = stopper.Told(name=daemon_name, place=tree.place, identity=tree.identity)
    report = await run_stopper(told, str(NOBODY))
    assert not report.emptied
    assert (report.survivors, report.signals, report.signalled, report.killed) == (3, (), (), 0)
    reasons = {skip.pid: skip.reason for skip in report.skipped if skip.pid}
    assert reasons == dict.fromkeys(processes, "not permitted")
    assert all(map(is_alive, processes))
    assert_emptied(await stop(tree), tree)


@with_processes
async def test_a_protected_process_is_not_even_probed_nor_what_is_below_it(lab, monkeypatch):
    opened, sent = set(), set()
    open_, send = os.pidfd_open, signal.pidfd_send_signal

    def watch_open(pid, *flags):
        opened.add(pid)
        return open_(pid, *flags)

    def watch_send(fd, number):
        sent.add(int(Path(f"/proc/self/fdinfo/{fd}").read_text().split("Pid:")[1].split()[0]))
        send(fd, number)

    tree = await lab.start("deep:3", "child:2", "say:ready", "sleep")
    [agent] = list_children(tree.identity.pid)
    top = next(child for child in list_children(agent) if list_children(child))
    spared = {top, *list_below(top)}
    assert len(spared) == 3
    policy = StopPolicy(protected_pids=frozenset({top}))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", watch_open)
        patch.setattr(signal, "pidfd_send_signal", watch_send)
        report = await stop(tree, grace_s=0.2, policy=policy)
    assert {skip.pid for skip in report.skipped} == spared
    assert agent in opened & sent
    assert not spared & (opened | sent)
    assert not spared & {one.pid for one in report.signalled}
    assert_emptied(await tree.kill(POLICY), tree)


@with_processes
async def test_a_daemon_inside_a_tree_spares_itself_and_all_its_ancestors(lab, daemon_name):
    """An agent that runs a daemon, which is asked to end the agent's own tree."""
    place = lab.place()
    prompt = Path(place.directory, "told")
    told = stopper.Told(name=daemon_name, place=place, identity=None)
    await trio.Path(prompt).write_bytes(msgspec.json.encode(told))
    root = str(Path(__file__).parent.parent.parent)
    tree = await lab.trees.start(
        place,
        Command(
            argv=(
                "/bin/sh",
                "-c",
                'sleep 600 & "$0" -m tests.fakes.stopper; exit 9',
                sys.executable,
            ),
            env={"PATH": os.defpath},
            cwd=root,
            stdin=str(prompt),
        ),
    )
    assert await tree.wait_exit() == Exit(status=9), lab.output(tree)
    report = msgspec.json.decode(lab.output(tree), type=StopReport)
    assert not report.emptied
    assert (report.signals, report.signalled) == ((), ())
    reasons = {skip.pid: skip.reason for skip in report.skipped}
    assert reasons.pop(tree.identity.pid) == "protected"
    assert set(reasons.values()) == {f"below the protected process {tree.identity.pid}"}
    assert len(reasons) == 3
    assert_emptied(await tree.kill(POLICY), tree)


# ---------------------------------------------------------------- who takes long


@in_cgroups
async def test_a_frozen_group_inside_a_leaf_acts_on_the_signal_too(lab):
    tree = await lab.start("on-term:0", "subgroup:one", "subgroup:two", "say:ready", "sleep")
    leaf = Path(tree.place.cgroup)
    (leaf / "one" / "cgroup.freeze").write_text("1")
    await wait_text(f"{leaf}/one/cgroup.events", "frozen 1")
    with trio.fail_after(20):
        await tree.terminate(POLICY)
    report = await tree.kill(POLICY)
    assert report.signals == ("SIGTERM",)
    assert_emptied(report, tree)


@with_processes
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("shape", "grace_s"), [("deep", 30), ("wide", 0)])
async def test_a_tree_5000_deep_and_one_5000_wide_are_ended(lab, tmp_path, shape, grace_s):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    words = ("/bin/sh", str(BIG_TREE), shape, "5000", str(fifo))
    command = Command(argv=words, env={"PATH": os.defpath}, cwd=str(tmp_path))
    tree = await lab.trees.start(lab.place(), command)
    with trio.fail_after(60):
        while "ready" not in lab.output(tree):  # noqa: ASYNC110  a program of its own tells
            await trio.sleep(0.01)
    report = await stop(tree, grace_s)
    for _ in range(5):  # a machine under load may need more than one bound for so many
        if not report.emptied:
            report = await tree.kill(POLICY)
    assert report.killed == 5002
    assert len(report.signalled) > (4000 if grace_s else 5001), "all but who ended with a parent"
    assert_emptied(report, tree)


@with_processes
async def test_trees_that_are_stopped_together_share_one_grace(lab):
    grace_s, polite = 2, [await lab.start("say:ready", "sleep") for _ in range(6)]
    stubborn = [await lab.start("ignore:TERM", "say:ready", "sleep") for _ in range(6)]

    async def stop_one(tree, last):
        report = await stop(tree, grace_s)
        assert last in report.signals
        assert_emptied(report, tree)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for tree in polite:
            nursery.start_soon(stop_one, tree, "SIGTERM")
        for tree in stubborn:
            nursery.start_soon(stop_one, tree, "SIGKILL")
    assert grace_s <= trio.current_time() - began < 5 * grace_s  # one by one: 6 graces


# ---------------------------------------------------------------- the exit of a stranger


@with_processes
async def test_an_adopted_shim_that_is_killed_has_an_exit_where_the_kernel_keeps_it(lab):
    first = await lab.start("child:1", "say:ready", "sleep")
    second = await lab.make_trees().adopt(first.place, first.identity)
    exits = []

    async def wait():
        exits.append(await second.wait_exit())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        kill_one(first.identity.pid)
        assert await first.wait_exit() == Exit(status=137)
    unknown = Exit(status=None, reason="its first process ended without leaving a status")
    assert exits == [Exit(status=137) if KEEPS_EXITS else unknown]
    assert_emptied(await second.kill(POLICY), second)


# ---------------------------------------------------------------- recovery, both ways


@everywhere
async def test_recovery_empties_a_leaf_without_record(lab):
    stray = await lab.start("child:2", "say:ready", "sleep")
    [place] = lab.make_trees().list_strays(frozenset())
    assert (place.run, place.cgroup_inode) == (stray.place.run, stray.place.cgroup_inode)
    tree = await lab.make_trees().adopt(place, None)
    assert_emptied(await stop(tree), stray)
    assert list(lab.make_trees().list_strays(frozenset())) == []
    await stray.wait_exit()


@everywhere
async def test_recovery_closes_a_record_without_leaf_with_what_the_status_file_says(lab):
    first = await lab.start("exit:42")
    await first.wait_exit()
    assert_emptied(await first.kill(POLICY), first)
    second = await lab.make_trees().adopt(first.place, first.identity)
    assert await second.wait_exit() == Exit(status=42)
    report = await stop(second)
    assert (report.signals, report.killed, report.skipped) == ((), 0, ())
    assert_emptied(report, second)


@in_cgroups
async def test_recovery_ends_a_verified_pid_without_leaf_and_all_below_it(lab):
    first = await lab.start("child:2", "setsid", "say:ready", "sleep")
    leaf, processes = Path(first.place.cgroup), list_processes(first)
    elsewhere = leaf.parent.parent.parent / "elsewhere"
    elsewhere.mkdir()
    for pid in processes:
        (elsewhere / "cgroup.procs").write_text(str(pid))
    await trio.Path(leaf).rmdir()
    second = await lab.make_trees().adopt(first.place, first.identity)
    report = await stop(second)
    assert {one.pid for one in report.signalled} == set(processes)
    assert_emptied(report, second)
    assert await first.wait_exit() == Exit(status=143)
    await Leaf(elsewhere).wait_empty()
    elsewhere.rmdir()


@in_cgroups
async def test_recovery_closes_a_pid_without_leaf_that_is_another_process_now(lab):
    first = await lab.start("exit:3")
    await first.wait_exit()
    assert_emptied(await first.kill(POLICY), first)
    async with deaf_bystander() as bystander:
        now = identify(bystander.pid)
        assert now is not None
        recorded = msgspec.structs.replace(now, start_ticks=now.start_ticks - 1)
        tree = await lab.make_trees().adopt(first.place, recorded)
        assert await tree.wait_exit() == Exit(status=3), "what the status file says"
        report = await stop(tree)
        assert report.skipped == (Skipped(pid=bystander.pid, reason=MISMATCH),)
        assert_emptied(report, tree)
        assert_untouched(bystander.pid)


@everywhere
async def test_recovery_closes_a_run_that_never_began_and_has_no_leaf(lab):
    place = lab.trees.place("AR-1", "ar-1-impl", RunId(f"never-{os.getpid()}"), "/no/such")
    tree = await lab.make_trees().adopt(place, None)
    assert (await tree.wait_exit()).status is None
    report = await stop(tree)
    assert (report.signals, report.killed, report.skipped) == ((), 0, ())
    assert_emptied(report, tree)
