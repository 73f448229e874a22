"""Outcome files: how an issue ended, beside the file of the issue that was put away."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from factoryd.adapters.sources.issue_files import Unreadable, read_issue_file, show
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Data, IssueState, OutcomeNote

_MAX_NAMESAKES = 10_000


class _Outcome(Data, frozen=True, kw_only=True):
    """The form of an outcome file."""

    key: str
    state: IssueState
    reason: str | None
    attempts: int
    rounds: int
    ended_at: str


def namesakes(name: str) -> Iterator[str]:
    """Yield `AR-1.md`, `AR-1.2.md`, `AR-1.3.md` and so on, but not for ever."""
    yield name
    stem = name.removesuffix(".md")
    for number in range(2, _MAX_NAMESAKES):
        yield f"{stem}.{number}.md"


def find_place(directory: Path, ref: str, key: str, content: bytes) -> Path:
    """Return where a file is to go: where it went before, else the first free place.

    An outcome of this issue with no file to it was interrupted, or its file was taken away.
    """
    for name in namesakes(ref):
        path = directory / name
        outcome = read_outcome(outcome_file(path))
        if os.path.lexists(path):
            if outcome == content:
                return path
        elif outcome is None or _key_of(outcome) == key:
            return path
    raise SourceFailed(f"{show(directory)}: has too many files named {show(ref)}: clear it out")


def is_known(path: Path) -> bool:
    """Say whether an issue was put away there, be its file there still or not."""
    return os.path.lexists(path) or os.path.lexists(outcome_file(path))


def outcome_file(path: Path) -> Path:
    """Return where the outcome of the issue in a file is written."""
    return path.with_name(f"{path.name}.outcome.json")


def read_outcome(path: Path) -> bytes | None:
    """Return the content of an outcome file; None when there is none; raise `SourceFailed`."""
    try:
        read = read_issue_file(path)
    except Unreadable as error:
        raise SourceFailed(f"{show(path)}: {error}") from error
    return read[0] if read else None


def is_outcome_of(path: Path, key: str) -> bool:
    """Say whether there is an outcome file of an issue."""
    with suppress(SourceFailed):
        outcome = read_outcome(path)
        return outcome is not None and _key_of(outcome) == key
    return False


def _key_of(outcome: bytes) -> str | None:
    try:
        return msgspec.json.decode(outcome, type=_Outcome).key
    except msgspec.DecodeError:
        return None


def encode_outcome(note: OutcomeNote) -> bytes:
    """Return the content of an outcome file."""
    outcome = _Outcome(
        key=note.key,
        state=note.state,
        reason=note.reason,
        attempts=note.attempts,
        rounds=note.rounds,
        ended_at=datetime.fromtimestamp(note.ended_at, UTC).isoformat().replace("+00:00", "Z"),
    )
    return msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n"
