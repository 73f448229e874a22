"""Waits for changes of files and directories, on one inotify descriptor for the whole daemon."""

import os
from typing import Self

import trio
from inotify_simple import INotify, flags, parse_events

_READ_BYTES = 1 << 16
_PAUSE_S = 0.01
"""Between two reads, so that many changes at once (hundreds of claims, a burst of output) cost few."""

_GONE = flags.MOVE_SELF | flags.DELETE_SELF | flags.IGNORED


class Watch:
    """One path under watch; made by `Watches.watch`, removed on leaving its `with` block.

    A watch that the kernel refuses (no such file yet, limits reached), or whose path has been
    moved or removed, polls instead, and watches again as soon as that is possible.
    """

    def __init__(
        self,
        watches: "Watches",
        path: str,
        events: int,
        poll_s: float,
        told: "Watch | None" = None,
    ) -> None:
        self.path = path
        self.events = events
        self._watches = watches
        self._poll_s = poll_s
        self._told = told
        self._handle = watches.attach(self)
        self._changed = trio.Event()

    async def wait(self) -> None:
        """Return once something may have happened since the last `wait` returned.

        Whatever happened in between makes the next call return at once; many events make one
        return. The first call counts from the making of the watch. One task waits at a time.
        """
        if self._handle is None and not self._changed.is_set():
            with trio.move_on_after(self._poll_s):
                await self._changed.wait()
        else:
            await self._changed.wait()
        self._changed = trio.Event()
        self.renew()

    def renew(self) -> None:
        """Watch again if the kernel does not; what happens before that is not seen."""
        if self._handle is None:
            self._handle = self._watches.attach(self)

    def notice(self) -> None:
        """Take note that something happened."""
        self._changed.set()
        if self._told is not None:
            self._told.notice()

    def lose(self) -> None:
        """Take note that the kernel watches this path no longer."""
        self._handle = None
        self.notice()

    def close(self) -> None:
        """Watch no longer. Closing twice is no error."""
        if self._handle is not None:
            self._watches.detach(self, self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Watches:
    """All watches of a daemon. `run` must be running for a `Watch.wait` to return.

    Where inotify cannot be had, every watch polls.
    """

    def __init__(self) -> None:
        self._inotify: INotify | None
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError:
            self._inotify = None
        self._watching: dict[int, set[Watch]] = {}

    @property
    def polling(self) -> bool:
        """Say whether there is no inotify, so that changes are noticed by polling only."""
        return self._inotify is None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wake watches as events come in, until cancelled."""
        task_status.started()
        if self._inotify is None:
            await trio.sleep_forever()
        while True:
            await trio.lowlevel.wait_readable(self._inotify)
            self._dispatch(self._inotify)
            await trio.sleep(_PAUSE_S)

    def watch(
        self, path: str, events: int, poll_s: float = 1.0, told: Watch | None = None
    ) -> Watch:
        """Watch a path for `inotify_simple.flags`; every `poll_s` seconds where that fails.

        Look at the path after this call, not before: earlier events are not seen. What happens
        wakes also who waits for `told`, so that one task can wait for several paths.
        """
        return Watch(self, path, events, poll_s, told)

    def close(self) -> None:
        """Close the descriptor; no watch may be waited for afterwards."""
        self._watching.clear()
        if self._inotify is not None:
            self._inotify.close()

    def attach(self, watch: Watch) -> int | None:
        """Ask the kernel to watch; return its handle, None when it refuses."""
        if self._inotify is None:
            return None
        # The kernel knows an inode once: masks of all who watch it are added up.
        mask = watch.events | flags.MOVE_SELF | flags.DELETE_SELF | flags.MASK_ADD
        try:
            handle = self._inotify.add_watch(watch.path, mask)
        except OSError:
            return None
        self._watching.setdefault(handle, set()).add(watch)
        return handle

    def detach(self, watch: Watch, handle: int) -> None:
        """Forget a watch, and the inode with its last one."""
        watching = self._watching.get(handle, set())
        watching.discard(watch)
        if not watching and self._watching.pop(handle, None) is not None:
            self._remove(handle)

    def _dispatch(self, inotify: INotify) -> None:
        try:
            data = os.read(inotify.fileno(), _READ_BYTES)
        except BlockingIOError:
            return
        for event in parse_events(data):
            if event.mask & flags.Q_OVERFLOW:
                for watch in [watch for some in self._watching.values() for watch in some]:
                    watch.notice()
            elif event.mask & _GONE:
                self._lose(event.wd)
            else:
                for watch in self._watching.get(event.wd, ()):
                    if watch.events & event.mask:
                        watch.notice()

    def _lose(self, handle: int) -> None:
        """Let go of an inode that is no longer what its path names; its watches look again."""
        lost = self._watching.pop(handle, set())
        for watch in lost:
            watch.lose()
        if lost:
            self._remove(handle)

    def _remove(self, handle: int) -> None:
        assert self._inotify is not None
        try:
            self._inotify.rm_watch(handle)
        except OSError:
            return  # the kernel has let go of it already
