"""The folder source among real files, good and bad ones."""

import contextlib
import ctypes
import json
import os
import random
import socket
import time
from pathlib import Path

import pytest
import trio

from factoryd.adapters.clock import SystemClock
from factoryd.adapters.inotify import Watches
from factoryd.adapters.sources import issue_folder
from factoryd.adapters.sources.folder import FolderSource
from factoryd.adapters.sources.issue_files import move, read_issue_file, stamp_of
from factoryd.adapters.sources.issue_folder import IssueFolder
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Issue, IssueState, Listing, OutcomeNote

DONE = OutcomeNote(
    key="AR-1", state=IssueState.DONE, reason=None, attempts=1, rounds=2, ended_at=1.5
)


def text(key: str = "AR-1", title: str = "t") -> str:
    return f"---\nkey: {key}\ntitle: {title}\n---\nbody of {key}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def folder(path: Path) -> IssueFolder:
    folder = IssueFolder("s", path)
    folder.make_directories()
    return folder


def look(folder: IssueFolder) -> Listing:
    return folder.list_ready(time.time())


def keys(folder: IssueFolder) -> list[str]:
    return [issue.key for issue in look(folder).issues]


def problem(folder: IssueFolder) -> str:
    """Return the one problem there is; the good issue beside it is listed."""
    listing = look(folder)
    assert [issue.key for issue in listing.issues] == ["GOOD-1"]
    (problem,) = listing.problems
    return f"{problem.where}: {problem.reason}"


@pytest.fixture
def ready(folder: IssueFolder) -> Path:
    """The ready directory, with one good issue in it."""
    (folder.ready / "good.md").write_text(text("GOOD-1"))
    return folder.ready


def test_an_issue_says_where_it_came_from_and_since_when(folder):
    file = folder.ready / "x.md"
    file.write_text(text())
    os.utime(file, (1000, 2000))
    (issue,) = look(folder).issues
    assert (issue.source, issue.ref, issue.since) == ("s", "x.md", 2000.0)


def test_hidden_and_unfinished_and_other_files_are_ignored(folder):
    for name in (".x.md", "x.md~", "x.md.tmp", "x.tmp", "README", "x.md.outcome.json"):
        (folder.ready / name).write_text("not an issue")
    assert look(folder) == Listing()


def test_malformed_front_matter_is_named_with_file_and_line(folder, ready):
    (ready / "bad.md").write_text("---\nkey: A\ntitle: [\n---\n")
    assert problem(folder).startswith(f"{ready}/bad.md:4: ")
    (ready / "bad.md").write_text("---\nkey: A\npriority: x\n---\n")
    assert problem(folder).startswith(f"{ready}/bad.md:1: `title` is missing")


def test_an_empty_file_is_a_problem(folder, ready):
    (ready / "bad.md").touch()
    assert "bad.md:1: the file is empty" in problem(folder)


def test_a_10_mb_file_is_refused_without_being_read(folder, ready):
    with (ready / "bad.md").open("wb") as file:
        file.truncate(10_000_000)
    assert "bad.md: is larger than 1 MiB (10000000 bytes)" in problem(folder)


def test_a_binary_file_is_a_problem(folder, ready):
    (ready / "bad.md").write_bytes(random.Random(1).randbytes(1000))
    assert "bad.md:" in problem(folder)
    (ready / "bad.md").write_bytes(text().encode() + b"\xff\xfe")
    assert "bad.md:6: is not UTF-8 text" in problem(folder)


def test_an_unreadable_file_is_a_problem_until_it_can_be_read(folder, ready, monkeypatch):
    bad = ready / "bad.md"
    bad.write_text(text("AR-1"))
    bad.chmod(0)
    if os.geteuid() == 0:  # root reads everything, so let the kernel's answer be another user's
        real = os.open

        def refuse(path, flags, mode=0o777):
            if str(path) == str(bad) and bad.stat().st_mode & 0o777 == 0:
                raise PermissionError(13, os.strerror(13), str(path))
            return real(path, flags, mode)

        monkeypatch.setattr(os, "open", refuse)
    assert "bad.md: cannot be read: Permission denied" in problem(folder)
    bad.chmod(0o644)
    assert keys(folder) == ["AR-1", "GOOD-1"]


def test_a_pipe_a_socket_a_device_a_directory_and_a_link_are_refused_at_once(folder, ready):
    def expect(what: str) -> None:
        assert what in problem(folder)
        with contextlib.suppress(IsADirectoryError):
            bad.unlink()

    bad = ready / "bad.md"
    os.mkfifo(bad)
    expect("bad.md: is a pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bad))
        expect("bad.md: is a socket")
    bad.symlink_to("/etc/passwd")
    expect("bad.md: is a symbolic link")
    bad.symlink_to("/nowhere")
    expect("bad.md: is a symbolic link")
    if os.geteuid() == 0:
        os.mknod(bad, 0o20600, os.makedev(1, 5))
        expect("bad.md: is a device")
    bad.mkdir()
    expect("bad.md: is a directory")


def test_a_file_that_vanishes_while_read_is_no_problem(folder, ready, monkeypatch):
    (ready / "bad.md").write_text(text())
    real = read_issue_file

    def vanish(path):
        (ready / "bad.md").unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(issue_folder, "read_issue_file", vanish)
    assert keys(folder) == ["GOOD-1"]
    assert look(folder).problems == ()


def test_a_file_name_that_cannot_be_shown_or_is_too_long_is_a_problem(folder, ready):
    for name in (b"a\nb.md", b"\xff.md", b"x" * 201 + b".md"):
        file = ready / os.fsdecode(name)
        file.write_text(text())
        message = problem(folder)
        assert "rename it" in message
        assert message.isprintable()
        file.unlink()


def test_of_two_files_with_one_key_the_first_by_name_counts(folder):
    (folder.ready / "b.md").write_text(text("AR-1", "second"))
    (folder.ready / "a.md").write_text(text("ar-1", "first"))
    listing = look(folder)
    assert [issue.title for issue in listing.issues] == ["first"]
    assert [problem.where for problem in listing.problems] == [f"{folder.ready}/b.md"]
    assert f"AR-1 is taken by {folder.ready}/a.md" in listing.problems[0].reason
    (folder.ready / "a.md").rename(folder.active / "a.md")
    listing = look(folder)
    assert listing.issues == ()
    assert f"AR-1 is taken by {folder.active}/a.md" in listing.problems[0].reason


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(folder, ready, monkeypatch):
    reads = []
    real = read_issue_file

    def count(path):
        reads.append(path.name)
        return real(path)

    monkeypatch.setattr(issue_folder, "read_issue_file", count)
    later = time.time() + 1
    folder.list_ready(later)
    folder.list_ready(later)
    assert reads == ["good.md"]
    stamp = (ready / "good.md").stat()
    (ready / "good.md").write_text(text("GOOD-2"))
    os.utime(ready / "good.md", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert [issue.key for issue in folder.list_ready(later).issues] == ["GOOD-2"]


def test_a_file_changed_within_one_tick_of_the_clock_is_read_again(folder, ready, monkeypatch):
    status = (ready / "good.md").stat()
    folder.list_ready(status.st_ctime)
    (ready / "good.md").write_text(text("GOOD-2"))
    monkeypatch.setattr(issue_folder, "stamp_of", lambda _: stamp_of(status))
    assert [issue.key for issue in folder.list_ready(status.st_ctime).issues] == ["GOOD-2"]


def test_the_cache_is_bounded(folder, monkeypatch):
    for number in range(10):
        (folder.ready / f"{number}.md").write_text(text(f"AR-{number}"))
    size = (folder.ready / "0.md").stat().st_size
    monkeypatch.setattr(issue_folder, "_CACHE_BYTES", 3 * size)
    later = time.time() + 1
    assert len(folder.list_ready(later).issues) == 10
    assert len(folder._known) == 3


@pytest.mark.slow
def test_10000_ready_files_are_listed_in_time(folder):
    for number in range(10_000):
        (folder.ready / f"{number}.md").write_text(text(f"AR-{number}") + "x" * 2000)
    later = time.time() + 1
    began = time.process_time()  # not what others on this machine need
    first = folder.list_ready(later)
    between = time.process_time()
    assert folder.list_ready(later) == first
    ended = time.process_time()
    assert len(first.issues) == 10_000
    assert between - began < 10
    assert ended - between < 2


def test_a_claim_never_replaces_a_file(folder):
    (folder.ready / "x.md").write_text(text("AR-1"))
    (folder.active / "x.md").write_text(text("AR-2"))
    (issue,) = look(folder).issues
    with pytest.raises(SourceFailed, match=r"active/x\.md is in the way"):
        folder.claim(issue)
    assert (folder.active / "x.md").read_text() == text("AR-2")
    assert (folder.ready / "x.md").exists()


def test_a_file_is_not_replaced_where_the_kernel_cannot_refuse_either(tmp_path, monkeypatch):
    class OldKernel:
        def renameat2(self, *_: object) -> int:
            ctypes.set_errno(22)
            return -1

    monkeypatch.setattr("factoryd.adapters.sources.issue_files._libc", OldKernel())
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    move(one, two)
    one.write_text("other")
    with pytest.raises(FileExistsError):
        move(one, two)
    assert two.read_text() == "1"


def claimed(folder: IssueFolder, title: str = "t") -> Issue:
    (folder.ready / "x.md").write_text(text("AR-1", title))
    (issue,) = look(folder).issues
    folder.claim(issue)
    return issue


def test_a_file_that_is_another_issue_now_or_none_reads_as_gone(folder):
    issue = claimed(folder)
    for content in (text("AR-2"), "no issue", ""):
        (folder.active / "x.md").write_text(content)
        assert folder.read(issue) is None
    (folder.active / "x.md").unlink()
    os.mkfifo(folder.active / "x.md")
    with pytest.raises(SourceFailed, match=r"x\.md: is a pipe"):
        folder.read(issue)


@pytest.mark.parametrize(
    ("state", "directory"),
    [
        (IssueState.DONE, "done"),
        (IssueState.PARKED, "failed"),
        (IssueState.CANCELLED, "cancelled"),
    ],
)
def test_an_outcome_moves_the_file_and_says_how_it_ended(folder, path, state, directory):
    issue = claimed(folder)
    note = OutcomeNote(key="AR-1", state=state, reason="why", attempts=2, rounds=3, ended_at=1.5)
    folder.write_outcome(issue, note)
    assert (path / directory / "x.md").read_text() == text()
    assert json.loads((path / directory / "x.md.outcome.json").read_text()) == {
        "key": "AR-1",
        "state": state,
        "reason": "why",
        "attempts": 2,
        "rounds": 3,
        "ended_at": "1970-01-01T00:00:01.500000Z",
    }
    assert sorted(file.name for file in path.rglob("*") if file.is_file()) == [
        "x.md",
        "x.md.outcome.json",
    ]


def test_a_file_that_a_person_put_away_has_its_outcome_beside_it_and_a_broken_one_is_not_gone(
    folder, path
):
    issue = claimed(folder)
    (folder.active / "x.md").write_text("being edited")
    assert folder.find_closed([issue]) == []
    (folder.active / "x.md").write_text(text())
    (folder.active / "x.md").rename(path / "done" / "x.md")
    folder.write_outcome(issue, DONE)
    assert sorted(os.listdir(path / "done")) == ["x.md", "x.md.outcome.json"]
    assert [one.outcome for one in folder.find_closed([issue])] == [None]


@pytest.mark.parametrize("already_ready", [False, True])
def test_what_is_reopened_has_no_outcome_any_more_wherever_its_file_lay(
    folder, path, already_ready
):
    issue = claimed(folder)
    (folder.active / "x.md").rename(path / "failed" / "x.md")
    folder.write_outcome(issue, DONE)
    (path / "cancelled" / "x.md.outcome.json").write_text('{"key": "not that one"}')
    assert (path / "done" / "x.md.outcome.json").exists()
    if already_ready:
        (path / "failed" / "x.md").rename(folder.ready / "x.md")
    folder.reopen(issue)
    left = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert left == ["cancelled/x.md.outcome.json", "ready/x.md"]


def test_an_interrupted_write_back_is_completed_by_the_next(folder, path, monkeypatch):
    issue = claimed(folder)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(issue_folder, "move", die)
        with pytest.raises(KeyboardInterrupt):
            folder.write_outcome(issue, DONE)
    assert (folder.active / "x.md").exists()
    folder.write_outcome(issue, DONE)
    folder.write_outcome(issue, DONE)
    assert sorted(os.listdir(path / "done")) == ["x.md", "x.md.outcome.json"]
    assert os.listdir(folder.active) == []


def test_an_outcome_never_replaces_an_older_one(folder, path):
    for title in ("first", "second", "third"):
        folder.write_outcome(claimed(folder, title), DONE)
        if title == "first":
            (path / "done" / "x.md.outcome.json").write_text("mine")
        if title == "second":
            (path / "done" / "x.2.md").write_text("edited")
            (path / "done" / "x.2.md.outcome.json").write_text("{}")
    assert sorted(os.listdir(path / "done")) == [
        "x.2.md",
        "x.2.md.outcome.json",
        "x.3.md",
        "x.3.md.outcome.json",
        "x.md",
        "x.md.outcome.json",
    ]
    assert (path / "done" / "x.md").read_text() == text(title="first")
    assert (path / "done" / "x.2.md").read_text() == "edited"
    assert (path / "done" / "x.3.md").read_text() == text(title="third")


def test_a_file_that_was_moved_back_to_ready_stays_there(folder, path):
    issue = claimed(folder)
    (folder.active / "x.md").rename(folder.ready / "x.md")
    folder.write_outcome(issue, DONE)
    assert keys(folder) == ["AR-1"]
    assert os.listdir(path / "done") == ["x.md.outcome.json"]


def test_an_outcome_that_cannot_be_written_leaves_the_file_claimed(folder, path):
    issue = claimed(folder)
    (path / "done").rmdir()
    with pytest.raises(OSError, match="done"):
        folder.write_outcome(issue, DONE)
    assert (folder.active / "x.md").exists()


@pytest.mark.parametrize("ref", ["../x.md", "", "a/b.md", ".x.md", "x\0.md"])
def test_a_handle_that_leads_elsewhere_is_refused(folder, ref):
    with pytest.raises(SourceFailed, match="no name of an issue file"):
        folder.claim(Issue(key="AR-1", title="t", ref=ref))


def test_a_submitted_file_is_named_after_its_key_and_never_replaces_one(folder):
    (folder.ready / "AR-1.md").write_text(text("OTHER-1"))
    (folder.active / "AR-1.2.md").write_text(text("OTHER-2"))
    assert folder.submit("../../AR-9\n.md", text("AR-1"), time.time()) == "AR-1"
    assert (folder.ready / "AR-1.3.md").read_text() == text("AR-1")
    assert sorted(os.listdir(folder.ready)) == ["AR-1.3.md", "AR-1.md"]


def test_a_submit_that_fails_leaves_nothing(folder, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        folder.submit("x", text(), time.time())
    assert os.listdir(folder.ready) == []


def test_a_folder_without_directories_is_empty_until_they_are_made(path):
    folder = IssueFolder("s", path)
    assert look(folder) == Listing()
    assert os.listdir(path) == []
    folder.make_directories()
    folder.make_directories()
    assert sorted(os.listdir(path)) == ["active", "cancelled", "done", "failed", "ready"]


@contextlib.asynccontextmanager
async def open_source(path: Path):
    with contextlib.closing(Watches()) as watches:
        async with trio.open_nursery() as nursery:
            await nursery.start(watches.run)
            with contextlib.closing(FolderSource("s", path, watches, SystemClock())) as source:
                yield source
            nursery.cancel_scope.cancel()


async def test_a_missing_directory_is_a_failure_with_a_way_out(path):
    async with open_source(path) as source:
        await source.make_directories()
        assert await source.list_ready() == Listing()
        (path / "ready").rmdir()
        with pytest.raises(SourceFailed, match=r"/ready: No such file or directory: see that"):
            await source.list_ready()
        (path / "ready").mkdir()
        assert await source.list_ready() == Listing()
    async with open_source(path / "gone") as source:
        with pytest.raises(SourceFailed, match="No such file"):
            await source.list_ready()
        with pytest.raises(SourceFailed, match="No such file"):
            await source.make_directories()


async def test_a_person_moving_files_is_noticed(path):
    async with open_source(path) as source:
        await source.make_directories()
        await source.list_ready()
        (path / "x").write_text(text())
        for act in (
            lambda: (path / "x").rename(path / "ready" / "x.md"),
            lambda: (path / "ready" / "x.md").chmod(0o600),
            lambda: (path / "ready" / "x.md").write_text(text("AR-2")),
            lambda: (path / "ready" / "x.md").rename(path / "y"),
        ):
            with trio.move_on_after(0.1):
                while True:
                    await source.wait_change()
            act()
            with trio.fail_after(5):
                await source.wait_change()


async def test_a_file_that_comes_while_the_first_listing_runs_is_noticed(path, monkeypatch):
    real = IssueFolder.list_ready

    def look_too_early(self, now):
        listing = real(self, now)
        (path / "ready" / "x.md").write_text(text())
        return listing

    async with open_source(path) as source:
        await source.make_directories()
        with monkeypatch.context() as patch:
            patch.setattr(IssueFolder, "list_ready", look_too_early)
            assert await source.list_ready() == Listing()
        with trio.fail_after(5):
            await source.wait_change()
        assert len((await source.list_ready()).issues) == 1


async def test_a_listing_that_hangs_can_be_given_up_and_others_wait_for_it(path, monkeypatch):
    hang = os.pipe()
    running = [0]
    real = IssueFolder.list_ready

    def block(self, now):
        running[0] += 1
        assert running[0] == 1
        os.read(hang[0], 1)
        running[0] -= 1
        return real(self, now)

    monkeypatch.setattr(IssueFolder, "list_ready", block)
    async with open_source(path) as source:
        for _ in range(3):
            with trio.move_on_after(0.05) as scope:
                await source.list_ready()
            assert scope.cancelled_caught
        os.write(hang[1], b"xx")
        with trio.fail_after(5):
            assert await source.list_ready() == Listing()
    os.close(hang[0])
    os.close(hang[1])
