"""A folder of issue files as a source of issues."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio
from inotify_simple import flags

from factoryd.adapters.hands import Hands
from factoryd.adapters.inotify import Watch, Watches
from factoryd.adapters.sources.issue_files import show
from factoryd.adapters.sources.issue_folder import IssueFolder
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Closed, Issue, Listing, OutcomeNote
from factoryd.ports import Clock

_T = TypeVar("_T")

# Neither CREATE nor MODIFY: a file is looked at when its writer is done with it.
_LEFT = flags.MOVED_FROM | flags.DELETE
_EVENTS = flags.CLOSE_WRITE | flags.MOVED_TO | flags.ATTRIB | _LEFT


class FolderSource:
    """Issues are files, and the directory a file is in says how its issue stands.

    The files are worked on in a thread, one operation at a time. Reading can be given up while a
    file system hangs; whatever comes next then waits until it no longer does.
    """

    def __init__(self, name: str, path: Path, watches: Watches, clock: Clock) -> None:
        self._name = name
        self._folder = IssueFolder(name, path)
        self._watches = watches
        self._ready: Watch | None = None
        self._active: Watch | None = None
        self._clock = clock
        self._hand = Hands(1)

    @property
    def name(self) -> str:
        """Return the name that status and facts know this source by."""
        return self._name

    @property
    def kind(self) -> str:
        """Return `folder`."""
        return "folder"

    async def make_directories(self) -> None:
        """Create the directories that are missing; without this they count as empty."""
        await self._do(self._folder.make_directories, give_up=True)

    def close(self) -> None:
        """Stop watching, until the next listing."""
        for watch in (self._active, self._ready):
            if watch is not None:
                watch.close()
        self._active = self._ready = None

    async def list_ready(self) -> Listing:
        """Return the issues in `ready/`, each key once, and what lies there and is none."""
        now = self._clock.now()
        if self._active is not None:
            self._active.renew()
        listing = await self._do(lambda: self._folder.list_ready(now), give_up=True)
        if self._ready is None:
            self._ready = self._watches.watch(str(self._folder.ready), _EVENTS)
            active = str(self._folder.active)
            self._active = self._watches.watch(active, _LEFT, told=self._ready)
            self._ready.notice()  # for what happened between the listing and the watch
        return listing

    async def wait_change(self) -> None:
        """Return once `ready/` may have changed since the newest `list_ready` began.

        Also once a file may have left `active/`.
        """
        if self._ready is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._ready.wait()

    async def read(self, issue: Issue) -> Issue | None:
        """Return the issue as its file is now; None when it is gone, malformed or another."""
        return await self._do(lambda: self._folder.read(issue), give_up=True)

    async def find_closed(self, claimed: Sequence[Issue]) -> Sequence[Closed]:
        """Return which files are neither in `active/` nor `ready/`, and where they were put."""
        return await self._do(lambda: self._folder.find_closed(claimed), give_up=True)

    async def claim(self, issue: Issue) -> Issue | None:
        """Move the file to `active/`; no file there is ever replaced. Return what it says now."""

        def claim() -> Issue | None:
            self._folder.claim(issue)
            return self._folder.read(issue)

        return await self._do(claim)

    async def write_outcome(self, issue: Issue, note: OutcomeNote) -> None:
        """Move the file to `done/`, `failed/` or `cancelled/`, its outcome beside it.

        A file that someone has taken out of `active/` stays where it is.
        """
        await self._do(lambda: self._folder.write_outcome(issue, note))

    async def reopen(self, issue: Issue) -> None:
        """Move the file of an ended issue back to `ready/` and remove its outcome file."""
        await self._do(lambda: self._folder.reopen(issue))

    async def submit(self, name: str, text: str) -> str:
        """Write a new file into `ready/`, named after its key, and return the key."""
        now = self._clock.now()
        return await self._do(lambda: self._folder.submit(name, text, now))

    async def _do(self, act: Callable[[], _T], *, give_up: bool = False) -> _T:
        try:
            return await self._hand.do(act, give_up=give_up)
        except OSError as error:
            where = show(str(error.filename or self._folder.ready.parent))
            raise SourceFailed(
                f"{where}: {error.strerror}: see that it is there and that we may write to it"
            ) from error
