"""The files of issues and runs in the state directory: `issues/KEY/` and `runs/KEY/RUN/`."""

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from factoryd.adapters.output import LineCutter, read_tail
from factoryd.core.model import Issue, RunId, TreePlace

MAX_READ_BYTES = 1 << 20
"""Read of an output at once: the end of it, or the next part."""


class StateDesk:
    """A desk below one state directory; everything in it is private to the daemon's user."""

    def __init__(self, state: Path) -> None:
        self._issues = state / "issues"
        self._runs = state / "runs"

    def make_run_directory(self, key: str, run: RunId) -> str:
        """Return the absolute path of a new, private directory for a run's files."""
        directory = self._runs / _safe(key) / _safe(run)
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
        return str(directory)

    def write_issue(self, issue: Issue) -> str:
        """Write the issue's text for its agents and return the absolute path."""
        path = self._issue_file(issue.key, "issue.md")
        text = f"# {issue.title}\n\n{issue.body}"
        _replace(path, text)
        return str(path)

    def write_feedback(self, key: str, text: str) -> None:
        """Keep what a reviewer said for the next round."""
        _replace(self._issue_file(key, "feedback.md"), text)

    def feedback_path(self, key: str) -> str:
        """Return where `write_feedback` keeps it."""
        return str(self._issue_file(key, "feedback.md"))

    def note_followed(self, place: TreePlace, offset: int) -> None:
        """Remember how far a run's output has been passed on."""
        path = Path(place.directory, "followed")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
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

        With `to_the_end`, also a last line that nothing ends.
        """
        try:
            descriptor = os.open(Path(place.directory, "output"), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            data = os.pread(descriptor, MAX_READ_BYTES, offset)
        finally:
            os.close(descriptor)
        cutter = LineCutter(offset, MAX_READ_BYTES)
        lines = [*cutter.feed(data)]
        if to_the_end or (not lines and len(data) == MAX_READ_BYTES):
            lines += cutter.finish()
        return lines

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

    def _issue_file(self, key: str, name: str) -> Path:
        directory = self._issues / _safe(key)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory / name


def _safe(name: str) -> str:
    """Return a name that cannot lead out of its directory, whatever it holds."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return cleaned if cleaned.strip(".") else "_"


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, "utf-8", newline="")
    fresh.replace(path)
