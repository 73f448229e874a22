"""Makes, keeps and removes the directories that agents work in."""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import trio

from factoryd.core.config import RepoConfig
from factoryd.core.errors import WorkspaceFailed
from factoryd.core.model import Data, Issue

_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "XDG_CONFIG_HOME", "TMPDIR", "SSH_AUTH_SOCK")
_SET = {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"}
_UNFINISHED = "locked initializing"
"""What git says of a worktree while it makes it, and ever after if it was killed meanwhile."""


class _Worktree(Data, frozen=True, kw_only=True):
    """What git knows about a worktree."""

    whole: bool
    """It is there and finished."""
    unfinished: bool


class LocalWorkspaces:
    """One workspace per issue and repository, `<state>/workspaces/<repo>/<key>`.

    Git runs with an environment of its own, one command at a time for each repository. Hooks of
    the repository run as they do for a person.
    """

    def __init__(
        self,
        repos: Callable[[], Mapping[str, RepoConfig]],
        state: Path,
        environ: Mapping[str, str],
    ) -> None:
        """`repos` is asked for the repositories whenever one is needed."""
        self._repos = repos
        self._root = state / "workspaces"
        self._env = {name: environ[name] for name in _PASSED_ON if name in environ} | _SET
        self._locks = defaultdict[str, trio.Lock](trio.Lock)

    async def prepare(self, issue: Issue, repo: str) -> str:
        """Return the absolute path of the issue's workspace, made now or kept from before.

        Raise `WorkspaceFailed` with the reason when it cannot be made.
        """
        config = self._find(repo)
        if config.workspace == "none":
            await trio.lowlevel.checkpoint()
            return config.path  # looked at when the agent is started in it
        place = self._place(issue, repo)
        await trio.to_thread.run_sync(self._make_parent, place)
        if config.workspace == "directory":
            await trio.to_thread.run_sync(_make_directory, place)
        else:
            async with self._locks[config.path]:
                await self._prepare_worktree(place, _branch(issue), config.path)
        await trio.to_thread.run_sync(self._check_inside, place)
        return await trio.to_thread.run_sync(os.path.realpath, place)

    async def release(self, issue: Issue, repo: str) -> str | None:
        """Remove the workspace if nothing would be lost; else keep it and return why."""
        config = self._find(repo)
        if config.workspace == "none":
            return None
        place = self._place(issue, repo)
        try:
            await trio.to_thread.run_sync(self._check_inside, place)
            if config.workspace == "directory":
                return await trio.to_thread.run_sync(_remove_directory, place)
            async with self._locks[config.path]:
                return await self._release_worktree(place, _branch(issue), config.path)
        except WorkspaceFailed as error:
            return f"{error}: {place} kept"

    def _find(self, repo: str) -> RepoConfig:
        config = self._repos().get(repo)
        if config is None:
            raise WorkspaceFailed(f"no repository is called {repo}: configure [repos.{repo}]")
        return config

    def _place(self, issue: Issue, repo: str) -> Path:
        for name in (repo, issue.key):
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                raise WorkspaceFailed(f"{name!a} cannot be the name of a directory")
        return self._root / repo / issue.key

    def _make_parent(self, place: Path) -> None:
        """Make the directory that the workspace goes into. Blocking."""
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            place.parent.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise WorkspaceFailed(
                f"{error.filename}: cannot be made ({error.strerror}): see what is there"
            ) from error
        self._check_inside(place)

    def _check_inside(self, place: Path) -> None:
        """Refuse a place, existing or not, that a link leads away from. Blocking."""
        root = self._root.resolve()
        if place.resolve() != root / place.relative_to(self._root):
            raise WorkspaceFailed(
                f"{place}: a symbolic link there leads elsewhere ({place.resolve()}): remove it"
            )

    async def _prepare_worktree(self, place: Path, branch: str, source: str) -> None:
        known = await self._find_worktree(place, source)
        exists = await trio.to_thread.run_sync(os.path.lexists, place)
        if known and known.whole and exists:
            return
        if exists and not (known and known.unfinished):
            await trio.to_thread.run_sync(_clear_empty, place, source)
        if known:
            await self._git(source, "worktree", "remove", "--force", "--force", str(place))
        if await self._has_branch(branch, source):
            await self._git(source, "worktree", "add", "--quiet", str(place), branch)
        else:
            await self._git(source, "worktree", "add", "--quiet", "-b", branch, str(place))

    async def _release_worktree(self, place: Path, branch: str, source: str) -> str | None:
        known = await self._find_worktree(place, source)
        exists = await trio.to_thread.run_sync(os.path.lexists, place)
        if exists and not (known and known.whole):
            return f"{place} is no worktree of {source} any more: kept"
        if exists:
            reason = await self._find_loss(place, branch, source)
            if reason:
                return f"{reason}: {place} kept"
        if known:
            await self._git(source, "worktree", "remove", str(place))
        return None

    async def _find_loss(self, place: Path, branch: str, source: str) -> str | None:
        """Say what removing a worktree would lose; None when nothing."""
        changes = await self._git(
            str(place),
            "status",
            "--porcelain",
            "--untracked-files=normal",
            "--ignore-submodules=none",
        )
        if changes:
            return f"{_count(len(changes.splitlines()), 'uncommitted change')} on {branch}"
        tips = ["HEAD"]
        if await self._has_branch(branch, source):
            tips.append(f"refs/heads/{branch}")
        others = ["--not", f"--exclude={branch}", "--branches", "--remotes"]
        commits = int(await self._git(str(place), "rev-list", "--count", *tips, *others))
        if commits:
            are = "is" if commits == 1 else "are"
            return f"{_count(commits, 'commit')} of {branch} {are} in no other branch"
        return None

    async def _find_worktree(self, place: Path, source: str) -> _Worktree | None:
        """Return what git knows about a worktree at this place; None when nothing."""
        listed = await self._git(source, "worktree", "list", "--porcelain", "-z")
        path = await trio.to_thread.run_sync(os.path.realpath, place)
        for entry in listed.split("\0\0"):
            lines = entry.split("\0")
            if lines[0] == f"worktree {path}":
                unfinished = _UNFINISHED in lines
                prunable = any(line.split(" ")[0] == "prunable" for line in lines)
                return _Worktree(whole=not unfinished and not prunable, unfinished=unfinished)
        return None

    async def _has_branch(self, branch: str, source: str) -> bool:
        found = await self._git(source, "for-each-ref", "--format=x", f"refs/heads/{branch}")
        return bool(found)

    async def _git(self, directory: str, *arguments: str) -> str:
        """Run git and return what it prints; raise `WorkspaceFailed` with its last words.

        Cancelling ends it with SIGTERM, so that it takes its lock files along.
        """
        # No file system monitor: git would leave that running, outside of every agent's tree.
        argv = ["git", "-C", directory, "-c", "core.fsmonitor=false", *arguments]
        try:
            done: CompletedProcess[bytes] = await trio.run_process(
                argv, capture_stdout=True, capture_stderr=True, check=False, env=self._env
            )
        except OSError as error:
            raise WorkspaceFailed(f"git cannot be run ({error.strerror}): install it") from error
        if done.returncode:
            told = _last_words(done.stderr) or f"exit status {done.returncode}"
            raise WorkspaceFailed(f"{directory}: git {arguments[0]} failed: {told}")
        return done.stdout.decode("utf-8", "surrogateescape")


def _branch(issue: Issue) -> str:
    return f"factory/{issue.key}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _last_words(stderr: bytes) -> str:
    """Return the line of git's standard error that says what went wrong."""
    lines = [line for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or [""])[-1].strip()


def _make_directory(place: Path) -> None:
    try:
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise WorkspaceFailed(f"{place}: cannot be made ({error.strerror})") from error


def _remove_directory(place: Path) -> str | None:
    try:
        place.rmdir()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{place} kept: {error.strerror}"
    return None


def _clear_empty(place: Path, source: str) -> None:
    """Remove an empty directory; raise `WorkspaceFailed` for anything else."""
    try:
        place.rmdir()
    except OSError as error:
        raise WorkspaceFailed(
            f"{place}: is in the way and no worktree of {source}: move it elsewhere"
        ) from error
