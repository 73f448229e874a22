"""Workspaces that are plain directories, for tests to script."""

from pathlib import Path

import trio

from factoryd.core.errors import WorkspaceFailed
from factoryd.core.model import Issue


class FakeWorkspaces:
    """Makes directories below `root`, which exists.

    A test may set `failure` (raised by `prepare` while set) and `kept` (why `release` keeps a
    workspace, by key), and read `prepared` and `released`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.failure: str | None = None
        self.kept: dict[str, str] = {}
        self.prepared: list[tuple[str, str]] = []
        self.released: list[tuple[str, str]] = []

    async def prepare(self, issue: Issue, repo: str) -> str:
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise WorkspaceFailed(self.failure)
        self.prepared.append((issue.key, repo))
        place = self._root / repo / issue.key
        place.mkdir(parents=True, exist_ok=True)
        return str(place)

    async def release(self, issue: Issue, repo: str) -> str | None:
        await trio.lowlevel.checkpoint()
        self.released.append((issue.key, repo))
        if issue.key in self.kept:
            return self.kept[issue.key]
        place = self._root / repo / issue.key
        if place.exists() and any(place.iterdir()):
            return f"{place} kept: not empty"
        if place.exists():
            place.rmdir()
        return None
