"""The files of issues and runs in the state directory: `issues/KEY/` and `runs/KEY/RUN/`."""

import os
import re
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from factoryd.adapters.output import LineCutter, read_tail
from factoryd.core.errors import WorkspaceFailed
from factoryd.core.model import Issue, RunId, TreePlace

MAX_READ_BYTES = 1 << 20
"""Read of an output at once: the end of it, or the next part."""


class StateDesk:
    """A desk below one state directory; everything in it is private to the daemon's user."""

    def __init__(self, state: Path) -> None:
        self._issues = state / "issues"
        self._runs = state / "runs"

    def make_run_directory(self, key: str, run: RunId) -> str:
        """Return the absolute path of a new, private directory for a run's files.

        Raises `WorkspaceFailed`, as whatever writes here does but `note_followed` (`OSError`).
        """
        directory = f"{self._runs}/{_safe(key)}/{_safe(run)}"
        with _explained():
            _make(os.path.dirname(directory))  # noqa: PTH120 (speed)
            os.mkdir(directory, 0o700)  # noqa: PTH102 (speed)
        return directory

    def write_issue(self, issue: Issue) -> str:
        """Write the issue's text for its agents and return the absolute path."""
        path = self.issue_path(issue.key)
        _replace(path, f"# {issue.title}\n\n{issue.body}")
        return path

    def issue_path(self, key: str) -> str:
        """Return where `write_issue` keeps it."""
        return f"{self._issues}/{_safe(key)}/issue.md"

    def write_feedback(self, key: str, text: str) -> None:
        """Keep what a reviewer said for the next round."""
        _replace(self.feedback_path(key), text)

    def feedback_path(self, key: str) -> str:
        """Return where `write_feedback` keeps it."""
        return f"{self._issues}/{_safe(key)}/feedback.md"

    def note_followed(self, place: TreePlace, offset: int) -> None:
        """Remember how far a run's output has been passed on."""
        path = Path(place.directory, "followed")
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.pwrite(descriptor, b"%020d\n" % offset, 0)
        finally:
            os.close(descriptor)

    def read_followed(self, place: TreePlace) -> int:
        """Return what `note_followed` noted last; 0 when nothing was."""
        with suppress(OSError, ValueError):
            return max(0, int(Path(place.directory, "followed").read_bytes()))
        return 0

    def read_tail(self, place: TreePlace, lines: int) -> list[tuple[int, str]]:
        """Return the last lines of a run's output, each with the offset where it ends."""
        return read_tail(Path(place.directory, "output"), lines, MAX_READ_BYTES)

    def read_from(
        self, place: TreePlace, offset: int, *, to_the_end: bool
    ) -> list[tuple[int, str]]:
        """Return the next whole lines of a run's output from `offset` on, a bounded part of them.

        With `to_the_end`, also a last line that nothing ends. Where the file has been freed, a line
        says how much of it is not shown.
        """
        descriptor = _open_regular(Path(place.directory, "output"))
        if descriptor is None:
            return []
        try:
            start = _find_data(descriptor, offset)
            data = os.pread(descriptor, MAX_READ_BYTES, start)
        finally:
            os.close(descriptor)
        cutter = LineCutter(start, MAX_READ_BYTES)
        lines = [*cutter.feed(data)]
        if to_the_end or (not lines and len(data) == MAX_READ_BYTES):
            lines += cutter.finish()
        skipped = [(start, f"… [skipped: {start - offset} bytes, no longer kept]")]
        return (skipped if start > offset else []) + lines

    def find_run(self, key: str, run: RunId) -> TreePlace | None:
        """Return where a run of an issue keeps its files; None when there is no such run."""
        directory = self._runs / _safe(key) / _safe(run)
        if not directory.is_dir():
            return None
        agent = run.rpartition("-")[0]
        return TreePlace(run=run, issue=key, agent=agent, directory=str(directory))

    def forget(self, key: str) -> None:
        """Remove an issue's files and those of its runs."""
        shutil.rmtree(self._issues / _safe(key), ignore_errors=True)
        shutil.rmtree(self._runs / _safe(key), ignore_errors=True)


def _safe(name: str) -> str:
    """Return a name that cannot lead out of its directory, whatever it holds."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:200]
    return cleaned if cleaned.strip(".") else "_"


def _replace(path: str, text: str) -> None:
    fresh = f"{path}.new"
    with _explained():
        _make(os.path.dirname(path))  # noqa: PTH120 (speed)
        with open(fresh, "wb", buffering=0) as file:  # noqa: PTH123 (speed)
            file.write(text.encode("utf-8", "replace"))
        os.replace(fresh, path)  # noqa: PTH105 (speed)


def _make(directory: str) -> None:
    """Make a directory that may be there; the one above it nearly always is, and costs no look."""
    try:
        os.mkdir(directory, 0o700)  # noqa: PTH102 (speed)
    except FileExistsError:
        return
    except FileNotFoundError:
        os.makedirs(directory, 0o700, exist_ok=True)  # noqa: PTH103 (speed)


@contextmanager
def _explained() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise WorkspaceFailed(f"{error.filename}: {error.strerror}") from error


def _open_regular(path: Path) -> int | None:
    """Open a file that an agent may have replaced; never block on it, nor follow it elsewhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor


def _find_data(descriptor: int, position: int) -> int:
    """Return where there is data at or after a position; the position itself when nowhere."""
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError:
        return position
