"""Workspaces on real git repositories: nothing lost, nothing outside, nothing left half-made."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio

from factoryd.adapters.workspace import LocalWorkspaces
from factoryd.core.config import RepoConfig
from factoryd.core.errors import WorkspaceFailed
from factoryd.core.model import Issue

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def issue(key: str = "AR-1") -> Issue:
    return Issue(key=key, title="t")


def at(directory: Path | str, *names: str) -> Path:
    return Path(directory, *names)


def git(directory: Path | str, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=ENV,
    )
    return done.stdout.strip()


def commit(directory: Path | str, name: str) -> None:
    Path(directory, name).write_text(name)
    git(directory, "add", name)
    git(directory, "commit", "-q", "-m", name)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    path.mkdir()
    git(path, "init", "-q", "-b", "main")
    commit(path, "readme")
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.mkdir()
    return path


@pytest.fixture
def workspaces(repo: Path, state: Path) -> LocalWorkspaces:
    return make(repo, state)


def make(repo: Path, state: Path) -> LocalWorkspaces:
    repos = {
        "tree": RepoConfig(path=str(repo), workspace="worktree"),
        "dir": RepoConfig(workspace="directory"),
        "none": RepoConfig(path=str(repo), workspace="none"),
        "gone": RepoConfig(path=str(repo / "gone"), workspace="worktree"),
    }
    return LocalWorkspaces(lambda: repos, state, ENV)


async def test_a_worktree_is_made_on_a_branch_of_its_own(workspaces, repo, state):
    place = await workspaces.prepare(issue(), "tree")
    assert place == str(state / "workspaces" / "tree" / "AR-1")
    assert git(place, "symbolic-ref", "HEAD") == "refs/heads/factory/AR-1"
    assert git(place, "rev-parse", "HEAD") == git(repo, "rev-parse", "main")
    assert at(place, "readme").exists()


async def test_a_worktree_is_kept_with_everything_in_it_for_the_next_attempt(
    workspaces, repo, state
):
    place = await workspaces.prepare(issue(), "tree")
    commit(place, "committed")
    at(place, "uncommitted").write_text("x")
    for after in (workspaces, make(repo, state)):
        assert await after.prepare(issue(), "tree") == place
        assert at(place, "uncommitted").read_text() == "x"
        assert at(place, "committed").exists()


async def test_a_worktree_in_the_middle_of_a_rebase_is_kept_too(workspaces):
    place = await workspaces.prepare(issue(), "tree")
    git(place, "checkout", "-q", "--detach")
    commit(place, "on-no-branch")
    assert await workspaces.prepare(issue(), "tree") == place
    assert "1 commit of factory/AR-1 is in no other branch" in await workspaces.release(
        issue(), "tree"
    )


async def test_a_worktree_whose_directory_was_removed_is_made_again_from_its_branch(
    workspaces, state
):
    place = await workspaces.prepare(issue(), "tree")
    commit(place, "work")
    at(place).rename(state / "elsewhere")
    assert await workspaces.prepare(issue(), "tree") == place
    assert at(place, "work").exists()


async def test_a_worktree_that_git_was_killed_over_is_made_again(workspaces, repo):
    place = await workspaces.prepare(issue(), "tree")
    at(place, "readme").unlink()
    git(repo, "worktree", "lock", "--reason", "initializing", place)
    assert await workspaces.prepare(issue(), "tree") == place
    assert at(place, "readme").exists()


async def test_many_issues_prepare_in_one_repository_at_once(workspaces, repo):
    git(repo, "config", "branch.autoSetupMerge", "always")  # git locks the configuration for it
    places: list[str] = []

    async def prepare(number: int) -> None:
        places.append(await workspaces.prepare(issue(f"AR-{number}"), "tree"))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(prepare, number)
    assert len(set(places)) == 10
    assert all(at(place, "readme").exists() for place in places)


async def test_what_is_in_the_way_is_left_alone_and_named(workspaces, state):
    place = state / "workspaces" / "tree" / "AR-1"
    place.mkdir(parents=True)
    (place / "precious").touch()
    with pytest.raises(WorkspaceFailed, match=r"AR-1: is in the way"):
        await workspaces.prepare(issue(), "tree")
    assert (place / "precious").exists()
    (place / "precious").unlink()
    assert await workspaces.prepare(issue(), "tree") == str(place)


async def test_a_worktree_that_lost_its_link_to_git_is_left_alone_and_named(workspaces):
    place = await workspaces.prepare(issue(), "tree")
    at(place, ".git").unlink()
    with pytest.raises(WorkspaceFailed, match="in the way"):
        await workspaces.prepare(issue(), "tree")
    assert "no worktree of" in await workspaces.release(issue(), "tree")
    assert at(place, "readme").exists()


async def test_what_git_complains_about_is_passed_on(workspaces, repo):
    git(repo, "checkout", "-q", "-b", "factory/AR-1")
    with pytest.raises(WorkspaceFailed, match=r"git worktree failed: fatal: .*already checked out"):
        await workspaces.prepare(issue(), "tree")
    with pytest.raises(WorkspaceFailed, match=r"gone: git worktree failed: fatal: .*No such file"):
        await workspaces.prepare(issue(), "gone")


async def test_a_missing_git_is_named(repo, state, tmp_path):
    repos = {"tree": RepoConfig(path=str(repo))}
    workspaces = LocalWorkspaces(lambda: repos, state, {"PATH": str(tmp_path)})
    with pytest.raises(WorkspaceFailed, match=r"git cannot be run \(No such file"):
        await workspaces.prepare(issue(), "tree")


async def test_an_unknown_repository_is_named(workspaces):
    with pytest.raises(WorkspaceFailed, match="no repository is called x"):
        await workspaces.prepare(issue(), "x")


async def test_git_hears_nothing_of_the_daemons_own_surroundings(repo, state, tmp_path):
    environ = {**ENV, "GIT_DIR": str(tmp_path / "wrong"), "GIT_WORK_TREE": "/", "SECRET": "x"}
    hook = repo / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nenv >{tmp_path}/seen\n")
    hook.chmod(0o755)
    workspaces = LocalWorkspaces(lambda: {"tree": RepoConfig(path=str(repo))}, state, environ)
    await workspaces.prepare(issue(), "tree")
    seen = (tmp_path / "seen").read_text()
    assert "GIT_TERMINAL_PROMPT=0" in seen
    assert "SECRET" not in seen
    assert "wrong" not in seen


async def test_a_clean_worktree_without_own_commits_is_removed(workspaces, repo):
    place = await workspaces.prepare(issue(), "tree")
    at(repo, ".git", "info", "exclude").write_text("build\n")
    at(place, "build").mkdir()
    at(place, "build", "ignored").touch()
    assert await workspaces.release(issue(), "tree") is None
    assert not at(place).exists()
    assert place not in git(repo, "worktree", "list")
    assert await workspaces.release(issue(), "tree") is None
    assert await workspaces.prepare(issue(), "tree") == place


@pytest.mark.parametrize("untracked", [True, False])
async def test_a_dirty_worktree_is_kept_with_the_reason(workspaces, repo, untracked):
    git(repo, "config", "status.showUntrackedFiles", "no")
    place = await workspaces.prepare(issue(), "tree")
    at(place, "new" if untracked else "readme").write_text("changed")
    reason = await workspaces.release(issue(), "tree")
    assert reason == f"1 uncommitted change on factory/AR-1: {place} kept"
    assert at(place, "readme").exists()


async def test_an_unpushed_worktree_is_kept_until_its_commits_are_elsewhere(
    workspaces, repo, tmp_path
):
    place = await workspaces.prepare(issue(), "tree")
    for number in range(3):
        commit(place, str(number))
    reason = await workspaces.release(issue(), "tree")
    assert reason == f"3 commits of factory/AR-1 are in no other branch: {place} kept"
    git(tmp_path, "init", "-q", "--bare", "remote")
    git(repo, "remote", "add", "origin", str(tmp_path / "remote"))
    git(place, "push", "-q", "origin", "factory/AR-1")
    assert await workspaces.release(issue(), "tree") is None
    assert not at(place).exists()


async def test_a_merged_worktree_is_removed(workspaces, repo):
    place = await workspaces.prepare(issue(), "tree")
    commit(place, "work")
    git(repo, "merge", "-q", "factory/AR-1")
    assert await workspaces.release(issue(), "tree") is None
    assert not at(place).exists()


async def test_a_locked_worktree_is_kept_with_gits_reason(workspaces, repo):
    place = await workspaces.prepare(issue(), "tree")
    git(repo, "worktree", "lock", "--reason", "mine", place)
    assert "locked working tree, lock reason: mine" in await workspaces.release(issue(), "tree")
    assert at(place, "readme").exists()


async def test_releasing_starts_no_program_that_an_agent_configured(workspaces, repo, tmp_path):
    place = await workspaces.prepare(issue(), "tree")
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    evil.chmod(0o755)
    git(place, "config", "core.fsmonitor", str(evil))
    assert await workspaces.release(issue(), "tree") is None
    assert not (tmp_path / "ran").exists()


async def test_a_directory_is_made_once_and_removed_when_empty(workspaces, state):
    place = await workspaces.prepare(issue(), "dir")
    assert place == str(state / "workspaces" / "dir" / "AR-1")
    at(place, "result").touch()
    assert await workspaces.prepare(issue(), "dir") == place
    assert await workspaces.release(issue(), "dir") == f"{place} kept: Directory not empty"
    at(place, "result").unlink()
    assert await workspaces.release(issue(), "dir") is None
    assert await workspaces.release(issue(), "dir") is None
    assert not at(place).exists()


async def test_without_a_workspace_the_repository_itself_is_used_and_never_touched(
    workspaces, repo
):
    assert await workspaces.prepare(issue(), "none") == str(repo)
    assert await workspaces.release(issue(), "none") is None
    assert (repo / "readme").exists()


@pytest.mark.parametrize("name", ["tree", "dir"])
@pytest.mark.parametrize("below", ["", "AR-1"])
async def test_a_link_that_leads_outside_is_refused(workspaces, state, tmp_path, name, below):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = state / "workspaces" / name / below
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(WorkspaceFailed, match="symbolic link"):
        await workspaces.prepare(issue(), name)
    assert "symbolic link" in await workspaces.release(issue(), name)
    assert list(outside.iterdir()) == []
    assert link.is_symlink()


async def test_a_key_that_leads_outside_is_refused(workspaces):
    for key in ("..", "../x", "/etc", ""):
        with pytest.raises(WorkspaceFailed, match="cannot be the name"):
            await workspaces.prepare(issue(key), "dir")


async def test_a_state_directory_behind_a_link_is_fine(repo, state, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(state)
    workspaces = make(repo, link)
    place = await workspaces.prepare(issue(), "tree")
    assert place == str(state / "workspaces" / "tree" / "AR-1")
    assert await workspaces.prepare(issue(), "tree") == place
    assert await workspaces.release(issue(), "tree") is None
    assert not at(place).exists()


async def test_cancelling_ends_git_and_leaves_the_repository_usable(workspaces, repo, tmp_path):
    hook = repo / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    hook.write_text(
        f"#!/bin/sh\necho $$ >{tmp_path}/pid\nmv {tmp_path}/pid {tmp_path}/shown\nread x <{fifo}\n"
    )
    hook.chmod(0o755)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(workspaces.prepare, issue(), "tree")
            while not (tmp_path / "shown").exists():  # noqa: ASYNC110  a program tells
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    pidfd = os.pidfd_open(int((tmp_path / "shown").read_text()))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    hook.unlink()
    place = await workspaces.prepare(issue(), "tree")
    assert at(place, "readme").exists()
    assert git(place, "status", "--porcelain") == ""
