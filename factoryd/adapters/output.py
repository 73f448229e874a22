"""Follows what runs print into their output files, which it keeps within bounds."""

import codecs
import ctypes
import errno
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import trio
from inotify_simple import flags

from factoryd.adapters.inotify import Watches
from factoryd.core.config import OutputConfig
from factoryd.core.model import TreePlace
from factoryd.ports import OutputSink, Progress

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 256 * 1024
_BACKLOG_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 4 * 1024 * 1024
_SHOWN_LINE_BYTES = 64 * 1024
_LINES_AT_ONCE = 500
_PAGE_BYTES = 4096
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PUNCH_HOLE_KEEP_SIZE = 2 | 1  # FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE

_libc = ctypes.CDLL(None, use_errno=True)


class LineCutter:
    """Cuts a stream of bytes into lines and holds at most one line's bound of them.

    Of a line that is longer the beginning is given out, marked as cut, and the rest is dropped.
    With `inside`, the stream begins in the middle of a line that is to be dropped.
    """

    def __init__(self, position: int, max_line_bytes: int, *, inside: bool = False) -> None:
        self.position = position
        """How far the stream has been fed in."""
        self._max_line_bytes = max_line_bytes
        self._partial = bytearray()
        self._dropping = inside

    @property
    def offset(self) -> int:
        """Return the position before which everything has been given out or dropped."""
        return self.position - len(self._partial)

    def feed(self, chunk: bytes) -> Iterator[tuple[int, str]]:
        """Yield every line that is complete now, each with the position where it ends."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            self.position += len(piece) + 1
            if self._dropping:
                self._dropping = False
            elif self._partial:
                line = self._partial + piece
                self._partial.clear()
                yield self.position, self._decode(line)
            else:
                yield self.position, self._decode(piece)
        self.position += len(rest)
        if not self._dropping:
            self._partial += rest
            if len(self._partial) > self._max_line_bytes:
                self._dropping = True
                yield from self.finish()

    def finish(self) -> Iterator[tuple[int, str]]:
        """Yield what has come of an unfinished line, if anything."""
        if self._partial:
            line = bytes(self._partial)
            self._partial.clear()
            yield self.position, self._decode(line)

    def _decode(self, line: bytes | bytearray) -> str:
        if len(line) <= self._max_line_bytes:
            return line.decode("utf-8", "replace").removesuffix("\r")
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        beginning = decoder.decode(line[: self._max_line_bytes])
        return f"{beginning}… [cut: line of over {self._max_line_bytes} bytes]"


class Follower:
    """Passes lines on to a sink, and frees what is passed on and beyond a run's share of disk."""

    def __init__(
        self, watches: Watches, sink: OutputSink, bounds: Callable[[], OutputConfig]
    ) -> None:
        """`bounds` is asked when a run's file is opened."""
        self._watches = watches
        self._sink = sink
        self._bounds = bounds
        self._can_free = True

    async def follow(self, place: TreePlace, offset: int, progress: Progress) -> None:
        """Pass on what is written from `offset` on, until cancelled.

        An unfinished line waits for its end. A writer that is ahead by more than the bytes kept
        per run (and 16 MiB) loses the oldest of them, and a line says how many.
        """
        path = _output_file(place)
        with self._watches.watch(str(path), flags.MODIFY) as watch:
            while (output := self._open(path, offset)) is None:
                await watch.wait()
            with output:
                while True:
                    await self._pass_on(output, place, progress)
                    await watch.wait()

    async def drain(self, place: TreePlace, progress: Progress) -> None:
        """Pass on what is in the file now and was not yet, an unfinished last line included."""
        output = self._open(_output_file(place), progress.offset)
        if output is None:
            await trio.lowlevel.checkpoint()
            return
        with output:
            await self._pass_on(output, place, progress)
            for offset, text in output.finish():
                self._sink.line(place, offset, text)
                progress.advance(offset)

    def _open(self, path: Path, offset: int) -> "_Output | None":
        descriptor = _open_regular(path, os.O_RDWR)
        if descriptor is None:
            return None
        bounds = self._bounds()
        return _Output(descriptor, offset, bounds.max_bytes_per_run, bounds.max_line_bytes)

    async def _pass_on(self, output: "_Output", place: TreePlace, progress: Progress) -> None:
        """Pass on all lines up to where the file ends, however fast it grows meanwhile."""
        while True:
            size = output.look()
            before = output.position
            for number, (offset, text) in enumerate(output.read(size), 1):
                self._sink.line(place, offset, text)
                if number % _LINES_AT_ONCE == 0:
                    progress.advance(offset)
                    await trio.lowlevel.checkpoint()
            if output.position == before:
                break
            progress.advance(output.offset)
            self._free(output, size)
            await trio.lowlevel.checkpoint()

    def _free(self, output: "_Output", size: int) -> None:
        if not self._can_free:
            return
        try:
            output.free(size)
        except OSError as error:
            self._can_free = False
            logger.warning(
                "output of agents is not bounded: the file system frees no part of a file (%s): "
                "keep the state directory on ext4, xfs, btrfs or tmpfs",
                error.strerror,
            )


class _Output:
    """One run's output file while it is read."""

    def __init__(self, descriptor: int, offset: int, max_bytes: int, max_line_bytes: int) -> None:
        self._descriptor = descriptor
        self._max_bytes = max_bytes
        self._max_line_bytes = max_line_bytes
        self._freed = 0
        self._cutter = self._begin(offset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    @property
    def position(self) -> int:
        """Return how far the file has been read."""
        return self._cutter.position

    @property
    def offset(self) -> int:
        """Return the position before which everything has been given out."""
        return self._cutter.offset

    def look(self) -> int:
        """Return the size of the file; begin again when somebody has truncated it."""
        size = os.fstat(self._descriptor).st_size
        if size < self.position:
            self._cutter = self._begin(0)
            self._freed = 0
        return size

    def read(self, size: int) -> Iterator[tuple[int, str]]:
        """Yield the lines of the next chunk before `size`.

        Freed parts are passed over in silence: they have been given out before.
        """
        start = _find_data(self._descriptor, self.position, size)
        backlog = max(self._max_bytes, _BACKLOG_BYTES)
        if start < size - backlog:
            start = size - backlog
            yield start, f"… [skipped: {start - self.position} bytes, written too fast]"
        if start > self.position:
            self._cutter = self._begin(start)
        chunk = os.pread(self._descriptor, min(_CHUNK_BYTES, size - start), start)
        yield from self._cutter.feed(chunk)

    def finish(self) -> Iterator[tuple[int, str]]:
        """Yield an unfinished last line, if there is one."""
        return self._cutter.finish()

    def free(self, size: int) -> None:
        """Give back the disk space of what was given out and is too old to be kept.

        Offsets stay valid. The byte before `offset` stays, as it tells whether a line begins
        there. Raise `OSError` where the file system cannot.
        """
        end = (min(self.offset, size - self._max_bytes) - 1) // _PAGE_BYTES * _PAGE_BYTES
        if end - self._freed < max(self._max_bytes // 16, _PAGE_BYTES):
            return
        length = ctypes.c_int64(end - self._freed)
        if _libc.fallocate64(
            self._descriptor, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(self._freed), length
        ):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._freed = end

    def _begin(self, position: int) -> LineCutter:
        inside = _is_inside(self._descriptor, position)
        return LineCutter(position, self._max_line_bytes, inside=inside)


def read_tail(path: Path, lines: int, max_bytes: int = _TAIL_BYTES) -> list[tuple[int, str]]:
    """Return the last lines of an output file, each with the position where it ends. Blocking.

    At most the last `max_bytes` are read. A line that begins before them is left out, unless there
    is no other. An unfinished last line counts. A missing file has no lines.
    """
    descriptor = _open_regular(path, os.O_RDONLY)
    if descriptor is None:
        return []
    with os.fdopen(descriptor, "rb"):
        size = os.fstat(descriptor).st_size
        start = _find_data(descriptor, max(0, size - max_bytes), size)
        inside = _is_inside(descriptor, start)
        data = os.pread(descriptor, size - start, start)
    cutter = LineCutter(start, max_bytes)
    found = [*cutter.feed(data), *cutter.finish()]
    if inside and len(found) > 1:
        del found[0]
    return found[-lines:] if lines > 0 else []


def read_lines(path: Path, offset: int, limit: int) -> list[tuple[int, str]]:
    """Return up to `limit` complete lines from `offset` on, each with where it ends. Blocking.

    Goes on after the last line when called again with the position where that ended. Lines are
    cut at 64 KiB. A missing file has no lines.
    """
    descriptor = _open_regular(path, os.O_RDONLY)
    if descriptor is None:
        return []
    found: list[tuple[int, str]] = []
    with _Output(descriptor, offset, sys.maxsize, _SHOWN_LINE_BYTES) as output:
        size = output.look()
        while output.position < size and len(found) < limit:
            found.extend(output.read(size))
    return found[:limit]


def _output_file(place: TreePlace) -> Path:
    return Path(place.directory) / "output"


def _is_inside(descriptor: int, position: int) -> bool:
    """Say whether a position is in the middle of a line."""
    return position > 0 and os.pread(descriptor, 1, position - 1) != b"\n"


def _open_regular(path: Path, access: int) -> int | None:
    """Open a regular file and nothing else, without ever blocking; None when there is none."""
    try:
        descriptor = os.open(path, access | _OPEN)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor


def _find_data(descriptor: int, position: int, size: int) -> int:
    """Return where data begins at or after `position`; `size` when there is only a hole."""
    try:
        return min(os.lseek(descriptor, position, os.SEEK_DATA), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return max(position, size)
        return position
