"""Waiting for changes: nothing missed, nothing polled where the kernel tells."""

import errno
import os
from pathlib import Path

import pytest
import trio
from inotify_simple import INotify, flags
from typing_extensions import override

from factoryd.adapters.inotify import Watches

LONG_S = 3600.0
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
WRITTEN = flags.CLOSE_WRITE | flags.MOVED_TO


@pytest.fixture
async def watches(nursery):
    watches = Watches()
    assert not watches.polling
    await nursery.start(watches.run)
    yield watches
    nursery.cancel_scope.cancel()
    watches.close()


async def is_quiet(watch) -> bool:
    """Let the events that there are come in, then say whether none was for this watch."""
    with trio.move_on_after(0.1) as scope:
        await watch.wait()
    return scope.cancelled_caught


async def test_a_change_wakes_whoever_waits(watches, tmp_path, nursery):
    with watches.watch(str(tmp_path), WRITTEN, LONG_S) as watch:
        woken = trio.Event()

        async def wait():
            await watch.wait()
            woken.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken.is_set()
        (tmp_path / "file").write_text("x")
        with trio.fail_after(5):
            await woken.wait()


async def test_a_change_between_two_waits_is_not_missed_and_many_are_one(watches, tmp_path):
    with watches.watch(str(tmp_path), WRITTEN, LONG_S) as watch, trio.fail_after(5):
        for number in range(100):
            (tmp_path / str(number)).write_text("x")
        await watch.wait()
        await trio.testing.wait_all_tasks_blocked()
        (tmp_path / "late").write_text("x")
        await watch.wait()
        assert await is_quiet(watch)


async def test_events_nobody_asked_for_wake_nobody(watches, tmp_path):
    (tmp_path / "file").write_text("x")
    with watches.watch(str(tmp_path), WRITTEN, LONG_S) as watch:
        (tmp_path / "file").read_text()
        (tmp_path / "file").unlink()
        assert await is_quiet(watch)


async def test_two_watches_of_one_inode_each_get_their_own_events(watches, tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.touch()
    link.hardlink_to(path)
    modified = watches.watch(str(path), flags.MODIFY, LONG_S)
    touched = watches.watch(str(link), flags.ATTRIB, LONG_S)
    with modified, touched, trio.fail_after(5):
        with path.open("a") as file:
            file.write("x")
        await modified.wait()
        assert await is_quiet(touched)
        path.chmod(0o600)
        await touched.wait()
        assert await is_quiet(modified)
        touched.close()
        path.write_text("y")
        await modified.wait()


async def test_a_closed_watch_leaves_nothing_in_the_kernel(watches, tmp_path):
    with watches.watch(str(tmp_path), WRITTEN) as one, watches.watch(str(tmp_path), WRITTEN) as two:
        assert count_in_kernel() == 1
        one.close()
        one.close()
        assert count_in_kernel() == 1
        two.close()
        assert count_in_kernel() == 0


def count_in_kernel() -> int:
    """Return how many inodes the inotify descriptors of this process watch."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()) == "anon_inode:inotify":
                info = Path("/proc/self/fdinfo", entry.name).read_text()
                count += sum(line.startswith("inotify ") for line in info.splitlines())
        except FileNotFoundError:
            continue
    return count


async def test_a_path_that_is_not_there_yet_is_watched_once_it_is(watches, tmp_path):
    path = tmp_path / "file"
    with watches.watch(str(path), flags.MODIFY, 0.01) as watch, trio.fail_after(5):
        await watch.wait()
        path.touch()
        while count_in_kernel() == 0:
            await watch.wait()
        assert await is_quiet(watch)
        with path.open("a") as file:
            file.write("x")
        await watch.wait()


@pytest.mark.parametrize("how", ["moved", "removed"])
async def test_a_directory_that_is_replaced_is_found_again(watches, tmp_path, how):
    path = tmp_path / "ready"
    path.mkdir()
    with watches.watch(str(path), WRITTEN, 0.01) as watch, trio.fail_after(5):
        if how == "moved":
            path.rename(tmp_path / "elsewhere")
        else:
            path.rmdir()
        await watch.wait()
        path.mkdir()
        while count_in_kernel() == 0:
            await watch.wait()
        assert await is_quiet(watch)
        (path / "file").write_text("x")
        await watch.wait()


async def test_without_inotify_a_wait_ends_after_the_polling_interval(
    monkeypatch, tmp_path, nursery, autojump_clock
):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("factoryd.adapters.inotify.INotify", refuse)
    watches = Watches()
    assert watches.polling
    await nursery.start(watches.run)
    with watches.watch(str(tmp_path), WRITTEN, 2.0) as watch:
        for number in (1, 2):
            await watch.wait()
            assert trio.current_time() == pytest.approx(2.0 * number)
    watches.close()
    nursery.cancel_scope.cancel()


async def test_a_watch_the_kernel_has_no_room_for_polls(monkeypatch, watches, tmp_path):
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(INotify, "add_watch", refuse)
        watch = watches.watch(str(tmp_path), WRITTEN, 0.01)
        with trio.fail_after(5):
            await watch.wait()
            await watch.wait()
    with watch, trio.fail_after(5):
        await watch.wait()
        assert await is_quiet(watch), "there is room again"


async def test_an_overflow_of_the_queue_wakes_everyone(tmp_path, nursery):
    quiet, busy = tmp_path / "quiet", tmp_path / "busy"
    quiet.mkdir()
    busy.mkdir()
    for name in ("a", "b"):
        (busy / name).touch()
    watches = Watches()
    with watches.watch(str(quiet), WRITTEN, LONG_S) as watch:
        with watches.watch(str(busy), flags.ATTRIB, LONG_S):
            for _ in range(QUEUE // 2 + 10):
                for name in ("a", "b"):  # equal events in a row would be one
                    os.utime(busy / name)
        await nursery.start(watches.run)
        with trio.fail_after(5):
            await watch.wait()
    nursery.cancel_scope.cancel()
    watches.close()


async def test_waiting_costs_no_wake_ups(watches, tmp_path):
    class Counter(trio.abc.Instrument):
        steps = 0

        @override
        def before_task_step(self, task: object) -> None:
            self.steps += 1

    with watches.watch(str(tmp_path), WRITTEN, 0.01) as watch:
        counter = Counter()
        trio.lowlevel.add_instrument(counter)
        assert await is_quiet(watch)
        trio.lowlevel.remove_instrument(counter)
        assert counter.steps <= 3


async def test_one_task_waits_for_two_paths_and_a_lost_one_is_watched_again_when_renewed(
    watches, tmp_path
):
    main, other = tmp_path / "main", tmp_path / "other"
    main.mkdir()
    other.mkdir()
    told = watches.watch(str(main), WRITTEN, LONG_S)
    tells = watches.watch(str(other), WRITTEN, LONG_S, told=told)
    with told, tells, trio.fail_after(5):
        assert await is_quiet(told)
        (other / "file").write_text("x")
        await told.wait()
        other.rename(tmp_path / "away")
        await told.wait()
        other.mkdir()
        tells.renew()
        (other / "file").write_text("x")
        await told.wait()
        (main / "file").write_text("x")
        await told.wait()
        assert await is_quiet(told)
