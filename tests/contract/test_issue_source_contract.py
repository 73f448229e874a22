"""What every `ports.IssueSource` must do. The folder and the fake take the same exam."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
import trio

from factoryd.adapters.clock import SystemClock
from factoryd.adapters.inotify import Watches
from factoryd.adapters.sources.folder import FolderSource
from factoryd.core.errors import BadUsage, SourceFailed
from factoryd.core.model import Issue, IssueState, OutcomeNote
from factoryd.ports import IssueSource
from tests.fakes.source import FakeSource


class World(Protocol):
    """A source, and what people do to it behind its back."""

    source: IssueSource

    def put(self, key: str, title: str) -> None: ...

    def take_away(self, key: str) -> None: ...

    def take_away_claimed(self, key: str) -> None: ...

    def close(self, key: str, outcome: IssueState) -> None: ...

    def outcomes(self) -> list[tuple[str, str]]: ...

    def break_down(self) -> None: ...


class FolderWorld:
    def __init__(self, path: Path, source: FolderSource) -> None:
        self.source: IssueSource = source
        self._path = path
        self._numbers = itertools.count()

    def put(self, key: str, title: str) -> None:
        temporary = self._path / f"{next(self._numbers)}.tmp"
        temporary.write_text(f"---\nkey: {key}\ntitle: {title}\n---\nDo it.\n")
        temporary.rename(self._path / "ready" / f"{key}.md")

    def take_away(self, key: str) -> None:
        for directory in ("ready", "active", "done", "failed", "cancelled"):
            (self._path / directory / f"{key}.md").unlink(missing_ok=True)

    def take_away_claimed(self, key: str) -> None:
        (self._path / "active" / f"{key}.md").unlink()

    def close(self, key: str, outcome: IssueState) -> None:
        names = {"done": "done", "parked": "failed", "cancelled": "cancelled"}
        file = self._path / "active" / f"{key}.md"
        file.rename(self._path / names[outcome] / file.name)

    def outcomes(self) -> list[tuple[str, str]]:
        names = {"done": "done", "failed": "parked", "cancelled": "cancelled"}
        return sorted(
            (file.name.split(".")[0], state)
            for directory, state in names.items()
            for file in (self._path / directory).glob("*.outcome.json")
        )

    def break_down(self) -> None:
        self._path.rename(self._path.with_name("gone"))


class FakeWorld:
    def __init__(self, source: FakeSource) -> None:
        self.source: IssueSource = source
        self._fake = source

    def put(self, key: str, title: str) -> None:
        self._fake.put(Issue(key=key, title=title, body="Do it.\n"))

    def take_away(self, key: str) -> None:
        self._fake.take_away(key)

    def take_away_claimed(self, key: str) -> None:
        del self._fake.active[key]

    def close(self, key: str, outcome: IssueState) -> None:
        self._fake.put_away(key, outcome)

    def outcomes(self) -> list[tuple[str, str]]:
        return sorted(
            (key, note.state) for key, notes in self._fake.outcomes.items() for note in notes
        )

    def break_down(self) -> None:
        self._fake.failure = "broken"


ENDS = (IssueState.DONE, IssueState.PARKED, IssueState.CANCELLED)


@contextlib.asynccontextmanager
async def open_folder(path: Path) -> AsyncIterator[World]:
    folder = path / "issues"
    folder.mkdir()
    with contextlib.closing(Watches()) as watches:
        async with trio.open_nursery() as nursery:
            await nursery.start(watches.run)
            with contextlib.closing(FolderSource("s", folder, watches, SystemClock())) as source:
                await source.make_directories()
                yield FolderWorld(folder, source)
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_fake(_: Path) -> AsyncIterator[World]:
    yield FakeWorld(FakeSource("s"))


@pytest.fixture(params=[open_folder, open_fake], ids=["folder", "fake"])
async def world(request, tmp_path):
    async with request.param(tmp_path) as world:
        yield world


def note(key: str, state: IssueState = IssueState.DONE, attempts: int = 1) -> OutcomeNote:
    return OutcomeNote(key=key, state=state, reason=None, attempts=attempts, rounds=1, ended_at=1e9)


async def only(source: IssueSource) -> Issue:
    listing = await source.list_ready()
    assert not listing.problems
    (issue,) = listing.issues
    return issue


async def test_a_ready_issue_is_listed_as_it_is_written(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    assert (issue.key, issue.title, issue.body) == ("AR-1", "First", "Do it.\n")
    assert issue.source == world.source.name
    assert issue.ref
    assert issue.version


async def test_an_empty_source_lists_nothing(world):
    assert (await world.source.list_ready()).issues == ()


async def test_an_issue_reads_back_as_it_is_now_ready_or_claimed(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    assert await world.source.read(issue) == issue
    await world.source.claim(issue)
    assert await world.source.read(issue) == issue


async def test_a_source_that_is_closed_can_be_written_back_to_and_listed_again(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    for _ in range(2):
        world.source.close()
    assert await world.source.read(issue) == issue
    await world.source.write_outcome(issue, note("AR-1"))
    assert world.outcomes() == [("AR-1", "done")]
    world.put("AR-2", "Second")
    assert (await only(world.source)).key == "AR-2"
    with trio.fail_after(5):
        world.put("AR-3", "Third")
        await world.source.wait_change()


async def test_a_changed_issue_has_another_version(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    world.put("AR-1", "Second")
    now = await world.source.read(issue)
    assert now is not None
    assert now.title == "Second"
    assert now.version != issue.version


@pytest.mark.parametrize("claimed", [False, True])
async def test_an_issue_that_is_gone_reads_as_none(world, claimed):
    world.put("AR-1", "First")
    issue = await only(world.source)
    if claimed:
        await world.source.claim(issue)
    world.take_away("AR-1")
    assert await world.source.read(issue) is None


async def test_a_claimed_issue_is_no_longer_ready_and_may_be_claimed_again(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    await world.source.claim(issue)
    assert (await world.source.list_ready()).issues == ()


async def test_of_claimed_issues_those_are_closed_that_others_ended_or_took_away(world):
    for key in ("AR-1", "AR-2", "AR-3", "AR-4", "AR-5", "AR-6"):
        world.put(key, "First")
    issues = (await world.source.list_ready()).issues
    for issue in issues[:5]:
        await world.source.claim(issue)
    assert await world.source.find_closed(issues) == []
    for key, outcome in zip(("AR-1", "AR-2", "AR-3"), ENDS, strict=True):
        world.close(key, outcome)
    world.take_away("AR-4")
    assert [(one.key, one.outcome) for one in await world.source.find_closed(issues)] == [
        *zip(("AR-1", "AR-2", "AR-3"), ENDS, strict=True),
        ("AR-4", None),
    ]
    assert await world.source.find_closed(()) == []


async def test_how_an_issue_ended_before_does_not_close_it_now(world):
    world.put("AR-1", "First")
    before = await only(world.source)
    await world.source.claim(before)
    await world.source.write_outcome(before, note("AR-1"))
    world.put("AR-1", "Second")
    issue = await only(world.source)
    await world.source.claim(issue)
    world.take_away_claimed("AR-1")
    (closed,) = await world.source.find_closed([issue])
    assert closed.outcome is None


async def test_the_outcome_of_an_issue_that_others_ended_is_written_where_they_did(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    world.close("AR-1", IssueState.DONE)
    for _ in range(2):
        await world.source.write_outcome(issue, note("AR-1"))
    assert world.outcomes() == [("AR-1", "done")]
    await world.source.reopen(issue)
    assert await only(world.source) == issue


async def test_a_claimed_issue_that_is_closed_ends_the_wait_for_a_change(world, nursery):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    with trio.move_on_after(0.2):
        while True:
            await world.source.wait_change()
            await world.source.list_ready()
    world.close("AR-1", IssueState.DONE)
    with trio.fail_after(5):
        await world.source.wait_change()


async def test_an_issue_that_is_gone_cannot_be_claimed(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    world.take_away("AR-1")
    with pytest.raises(SourceFailed, match="AR-1"):
        await world.source.claim(issue)


async def test_an_issue_put_back_while_claimed_is_not_listed_and_not_claimed_over(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    world.put("AR-1", "Second")
    listing = await world.source.list_ready()
    assert (listing.issues, listing.copies) == ((), ("AR-1",)), "it has not left ready either"
    with pytest.raises(SourceFailed, match="in the way"):
        await world.source.claim(issue)
    claimed = await world.source.read(issue)
    assert claimed is not None
    assert claimed.title == "First"


@pytest.mark.parametrize("state", [IssueState.DONE, IssueState.PARKED, IssueState.CANCELLED])
async def test_an_outcome_written_twice_is_written_once(world, state):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    for _ in range(2):
        await world.source.write_outcome(issue, note("AR-1", state))
    assert world.outcomes() == [("AR-1", state)]
    assert (await world.source.list_ready()).issues == ()
    assert await world.source.read(issue) is None


async def test_an_issue_that_comes_back_gets_a_second_outcome(world):
    for attempts in (1, 2):
        world.put("AR-1", "First")
        issue = await only(world.source)
        await world.source.claim(issue)
        await world.source.write_outcome(issue, note("AR-1", attempts=attempts))
    assert world.outcomes() == [("AR-1", "done")] * 2


async def test_an_outcome_of_an_issue_that_was_taken_away_is_written_all_the_same(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    world.take_away("AR-1")
    await world.source.write_outcome(issue, note("AR-1"))
    assert world.outcomes() == [("AR-1", "done")]


@pytest.mark.parametrize("state", [IssueState.DONE, IssueState.PARKED, IssueState.CANCELLED])
async def test_an_ended_issue_is_ready_again_when_reopened(world, state):
    world.put("AR-1", "First")
    issue = await only(world.source)
    for attempts in (1, 2):
        await world.source.claim(issue)
        await world.source.write_outcome(issue, note("AR-1", state, attempts))
        assert (await world.source.list_ready()).issues == ()
        for _ in range(2):
            await world.source.reopen(issue)
            again = await only(world.source)
            assert (again.key, again.title, again.ref) == ("AR-1", "First", issue.ref)


async def test_an_issue_is_reopened_wherever_it_was_left(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.reopen(issue)
    assert await only(world.source) == issue
    await world.source.claim(issue)
    await world.source.reopen(issue)
    assert (await only(world.source)).key == "AR-1"


async def test_an_issue_that_is_gone_cannot_be_reopened(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    await world.source.claim(issue)
    await world.source.write_outcome(issue, note("AR-1"))
    world.take_away("AR-1")
    with pytest.raises(SourceFailed, match="AR-1"):
        await world.source.reopen(issue)
    assert (await world.source.list_ready()).issues == ()


async def test_a_change_ends_the_wait_also_when_it_came_before(world):
    await world.source.list_ready()
    with trio.fail_after(5):
        while not (await world.source.list_ready()).issues:
            world.put("AR-1", "First")
            await world.source.wait_change()
        world.take_away("AR-1")
        while (await world.source.list_ready()).issues:
            await world.source.wait_change()


async def test_a_change_wakes_a_waiting_task(world, nursery):
    await world.source.list_ready()

    async def put_later():
        await trio.testing.wait_all_tasks_blocked()
        world.put("AR-1", "First")

    nursery.start_soon(put_later)
    with trio.fail_after(5):
        while not (await world.source.list_ready()).issues:
            await world.source.wait_change()


async def test_a_submitted_issue_is_ready(world):
    text = "---\nkey: AR-7\ntitle: Seven\nlabels: [a]\n---\nBody\n"
    assert await world.source.submit("../../etc/passwd", text) == "AR-7"
    issue = await only(world.source)
    assert (issue.key, issue.title, issue.labels, issue.body) == ("AR-7", "Seven", ("a",), "Body\n")


async def test_a_key_that_is_ready_or_claimed_is_not_submitted_again(world):
    text = "---\nkey: AR-7\ntitle: Seven\n---\n"
    await world.source.submit("x.md", text)
    for _ in ("ready", "claimed"):
        with pytest.raises(BadUsage, match=r"'x\.md': AR-7 is there already"):
            await world.source.submit("x.md", text.replace("AR", "ar"))
        if (await world.source.list_ready()).issues:
            await world.source.claim(await only(world.source))


@pytest.mark.parametrize(
    "text", ["", "no issue", "---\nkey: ../x\ntitle: t\n---\n", "---\nkey: A\ntitle: \udcff\n---\n"]
)
async def test_a_text_that_is_no_issue_is_refused_by_name(world, text):
    with pytest.raises(BadUsage, match=r"^'mine\.md': "):
        await world.source.submit("mine.md", text)
    assert (await world.source.list_ready()).issues == ()


async def test_a_source_that_is_broken_says_so(world):
    world.put("AR-1", "First")
    issue = await only(world.source)
    world.break_down()
    for act in (
        world.source.list_ready,
        lambda: world.source.claim(issue),
        lambda: world.source.write_outcome(issue, note("AR-1")),
        lambda: world.source.reopen(issue),
        lambda: world.source.submit("x", "---\nkey: B\ntitle: t\n---\n"),
    ):
        with pytest.raises(SourceFailed):
            await act()
