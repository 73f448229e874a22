"""What every `ports.Workspaces` must do. The real ones and the fake take the same exam."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from factoryd.adapters.workspace import LocalWorkspaces
from factoryd.core.config import RepoConfig
from factoryd.core.model import Issue
from factoryd.ports import Workspaces
from tests.fakes.workspaces import FakeWorkspaces


async def make_worktrees(path: Path) -> Workspaces:
    repo = path / "repo"
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "first"]):
        repo.mkdir(exist_ok=True)
        await trio.run_process(["git", "-C", str(repo), *arguments])
    return LocalWorkspaces(lambda: {"r": RepoConfig(path=str(repo))}, path, os.environ)


async def make_directories(path: Path) -> Workspaces:
    return LocalWorkspaces(lambda: {"r": RepoConfig(workspace="directory")}, path, os.environ)


async def make_fake(path: Path) -> Workspaces:
    return FakeWorkspaces(path)


@pytest.fixture(
    params=[make_worktrees, make_directories, make_fake], ids=["worktree", "directory", "fake"]
)
async def workspaces(request, tmp_path):
    return await request.param(tmp_path)


def issue(key: str = "AR-1") -> Issue:
    return Issue(key=key, title="t")


def look(place: str, see: Callable[[Path], bool]) -> bool:
    return see(Path(place))


async def test_a_workspace_is_an_absolute_directory_and_stays_the_same(workspaces):
    place = await workspaces.prepare(issue(), "r")
    assert look(place, Path.is_absolute)
    assert look(place, Path.is_dir)
    assert await workspaces.prepare(issue(), "r") == place


async def test_two_issues_have_two_workspaces(workspaces):
    one = await workspaces.prepare(issue("AR-1"), "r")
    assert await workspaces.prepare(issue("AR-2"), "r") != one


async def test_a_workspace_with_nothing_in_it_is_removed_and_can_be_made_again(workspaces):
    place = await workspaces.prepare(issue(), "r")
    for _ in range(2):
        assert await workspaces.release(issue(), "r") is None
        assert not look(place, Path.exists)
    assert await workspaces.prepare(issue(), "r") == place
    assert look(place, Path.is_dir)


async def test_a_workspace_with_work_in_it_is_kept_with_the_reason(workspaces):
    place = await workspaces.prepare(issue(), "r")
    work = f"{place}/work"
    await trio.Path(work).touch()
    reason = await workspaces.release(issue(), "r")
    assert reason is not None
    assert place in reason
    assert look(work, Path.exists)
    assert await workspaces.prepare(issue(), "r") == place
    assert look(work, Path.exists)
