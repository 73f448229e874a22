"""The five directories of a folder of issues: what lies in them, how files move between them."""

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import msgspec

from factoryd.adapters.sources.front_matter import Malformed, parse_issue, shorten
from factoryd.adapters.sources.issue_files import (
    MAX_BYTES,
    Stamp,
    Unreadable,
    move,
    read_issue_file,
    replace,
    stamp_of,
    sync_directory,
    write_new,
)
from factoryd.core.errors import BadUsage, SourceFailed
from factoryd.core.model import Data, Issue, IssueState, Listing, OutcomeNote, Problem

_ENDS = {
    IssueState.DONE: "done",
    IssueState.PARKED: "failed",
    IssueState.CANCELLED: "cancelled",
}
_MAX_NAME_BYTES = 200  # leaves room for what is appended
_MAX_NAMESAKES = 10_000
_SETTLED_AFTER_S = 0.1  # coarser than the clock that stamps files
_CACHE_BYTES = 64 * 1024 * 1024


class _Known(Data, frozen=True, kw_only=True):
    """What a file said when it had this stamp."""

    stamp: Stamp
    found: Issue | Problem


class _Outcome(Data, frozen=True, kw_only=True):
    """The form of an outcome file."""

    key: str
    state: IssueState
    reason: str | None
    attempts: int
    rounds: int
    ended_at: str


class IssueFolder:
    """Every method blocks, and may raise `OSError` besides what it says; one thread at a time."""

    def __init__(self, source: str, path: Path) -> None:
        self.ready = path / "ready"
        self.active = path / "active"
        self._ends = {state: path / directory for state, directory in _ENDS.items()}
        self._source = source
        self._made = False
        self._known: dict[Path, _Known] = {}
        self._listed: dict[str, Issue] = {}
        """What was ready or active at the last listing, by file name."""

    def make_directories(self) -> None:
        """Create the directories that are missing.

        Until this is called a missing one counts as empty, afterwards as an error.
        """
        for directory in (self.ready, self.active, *self._ends.values()):
            directory.mkdir(exist_ok=True)
        self._made = True

    def list_ready(self, now: float) -> Listing:
        """Return the issues in `ready/` by file name, and what lies there and is none.

        Of files with one key, in whatever case, the one in `active/` counts, else the first.
        Files that have not changed since the last listing are not read again.
        """
        known: dict[Path, _Known] = {}
        active = [
            (path, found)
            for path, found in self._look(self.active, now, known)
            if isinstance(found, Issue)
        ]
        takers = {issue.key.casefold(): path for path, issue in active}
        issues: list[Issue] = []
        problems: list[Problem] = []
        copies: list[str] = []
        for path, found in self._look(self.ready, now, known):
            if isinstance(found, Problem):
                problems.append(found)
                continue
            taker = takers.setdefault(found.key.casefold(), path)
            if taker is path:
                issues.append(found)
            else:
                reason = f"the key {found.key} is taken by {show(taker)}: change it or remove one"
                problems.append(Problem(where=show(path), reason=reason))
                copies.append(found.key)
        self._known = known
        self._listed = {issue.ref: issue for issue in (*issues, *(one for _, one in active))}
        return Listing(issues=tuple(issues), problems=tuple(problems), copies=tuple(copies))

    def read(self, issue: Issue) -> Issue | None:
        """Return the issue as its file is now, claimed or ready.

        None when there is no such file, or it is malformed or another issue now. Raise
        `SourceFailed` when it cannot be read.
        """
        for directory in (self.active, self.ready):
            try:
                known = self._load(directory / _check_ref(issue))
            except Unreadable as error:
                raise SourceFailed(f"{show(directory / issue.ref)}: {error}") from error
            if known and isinstance(known.found, Issue) and known.found.key == issue.key:
                return known.found
        return None

    def claim(self, issue: Issue) -> None:
        """Move the file from `ready/` to `active/`, if it is not there already.

        Raise `SourceFailed` when it is in neither, or another file is in the way.
        """
        ref = _check_ref(issue)
        source, target = self.ready / ref, self.active / ref
        if not os.path.lexists(source) and os.path.lexists(target):
            return
        try:
            move(source, target)
        except FileNotFoundError as error:
            raise SourceFailed(
                f"{show(source)}: is no longer there, so {issue.key} cannot be claimed: "
                "put it back if it is to be worked on"
            ) from error
        except FileExistsError as error:
            raise SourceFailed(
                f"{show(source)}: cannot be claimed, {show(target)} is in the way: "
                "move one of them elsewhere"
            ) from error
        # Not flushed to disk: after a power failure the claim, which the ledger holds, is made again.

    def write_outcome(self, issue: Issue, note: OutcomeNote) -> None:
        """Write the outcome beside where the file is to go, then move the file from `active/`.

        In this order, so that doing it again completes what was interrupted. Files that are there
        already are kept: this one gets a number. A file that someone took out of `active/` stays
        where they put it.
        """
        ref = _check_ref(issue)
        directory = self._ends.get(note.state)
        if directory is None:
            raise SourceFailed(f"{note.key}: {note.state} is no outcome to write back")
        content = _encode_outcome(note)
        target = _find_place(directory, ref, note.key, content)
        outcome = _outcome_file(target)
        if _read_outcome(outcome) != content:
            replace(outcome, content)
        try:
            move(self.active / ref, target)
        except FileNotFoundError:
            return
        except FileExistsError as error:
            raise SourceFailed(
                f"{show(self.active / ref)}: cannot be put away, {show(target)} is in the way: "
                "move one of them elsewhere"
            ) from error
        sync_directory(directory)
        sync_directory(self.active)

    def reopen(self, issue: Issue) -> None:
        """Move the file of an ended issue back to `ready/`, its outcome file is removed.

        Of several in `done/`, `failed/` and `cancelled/` the one put there last is meant. A file
        that is in `ready/` stays. Raise `SourceFailed` when there is none, or one is in the way.
        """
        target = self.ready / _check_ref(issue)
        places = [self.active / issue.ref]
        for directory in self._ends.values():
            places += itertools.takewhile(_is_known, map(directory.joinpath, _namesakes(issue.ref)))
        found = {path: known.stamp for path in places if (known := self._load_if(path, issue.key))}
        if self._load_if(target, issue.key) is not None:
            return
        if not found:
            raise SourceFailed(f"{show(target)}: {issue.key} lies nowhere: put its file there")
        source = max(found, key=lambda path: found[path].changed)
        try:
            move(source, target)
        except FileExistsError as error:
            raise SourceFailed(f"{show(target)}: is in the way: move it elsewhere") from error
        _outcome_file(source).unlink(missing_ok=True)
        sync_directory(self.ready)
        sync_directory(source.parent)

    def _load_if(self, path: Path, key: str) -> _Known | None:
        """Return what a file says if it is the issue of this key, else None."""
        with suppress(Unreadable):
            known = self._load(path)
            if known and isinstance(known.found, Issue) and known.found.key == key:
                return known
        return None

    def submit(self, name: str, text: str, now: float) -> str:
        """Write a new file into `ready/`, named after its key, and return the key.

        Raise `BadUsage` when the text is no issue or its key is ready or active already.
        """
        shown = shorten(name)
        key, data = _check_text(shown, text)
        for directory in (self.active, self.ready):
            for path, found in self._look(directory, now, {}):
                if isinstance(found, Issue) and found.key.casefold() == key.casefold():
                    raise BadUsage(
                        f"{shown}: {found.key} is there already ({show(path)}): "
                        "change that file or choose another key"
                    )
        for file_name in _namesakes(f"{key}.md"):
            if os.path.lexists(self.active / file_name):
                continue
            with suppress(FileExistsError):
                write_new(self.ready / file_name, data)
                return key
        raise SourceFailed(f"{show(self.ready)}: has too many files named after {key}")

    def _look(
        self, directory: Path, now: float, known: dict[Path, _Known]
    ) -> Iterator[tuple[Path, Issue | Problem]]:
        """Yield what every issue file in a directory says, by name; add what will stay true."""
        settled = now - _SETTLED_AFTER_S
        cached = 0
        for path, stamp in self._scan(directory):
            now_known = self._known.get(path)
            if now_known is None or now_known.stamp != stamp:
                try:
                    now_known = self._load(path)
                except Unreadable as error:
                    yield path, Problem(where=show(path), reason=str(error))
                    continue
            if now_known is None:
                continue
            cached += now_known.stamp.size
            if now_known.stamp.changed < settled and cached <= _CACHE_BYTES:
                known[path] = now_known
            yield path, now_known.found

    def _scan(self, directory: Path) -> list[tuple[Path, Stamp]]:
        found: list[tuple[Path, Stamp]] = []
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if not _is_issue_file(entry.name):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    found.append((directory / entry.name, stamp_of(status)))
        except FileNotFoundError:
            if self._made or not directory.parent.is_dir():
                raise
        return sorted(found, key=lambda pair: pair[0].name)

    def _load(self, path: Path) -> _Known | None:
        """Return what a file says; None when it is not there; raise `Unreadable`."""
        _check_name(path.name)
        read = read_issue_file(path)
        if read is None:
            return None
        data, stamp = read
        version = sha256(data).hexdigest()
        listed = self._listed.get(path.name)
        if listed is not None and listed.version == version:
            return _Known(stamp=stamp, found=msgspec.structs.replace(listed, since=stamp.mtime))
        try:
            parsed = parse_issue(data)
        except Malformed as error:
            where = f"{show(path)}:{error.line}"
            return _Known(stamp=stamp, found=Problem(where=where, reason=error.reason))
        issue = Issue(
            key=parsed.key,
            title=parsed.title,
            body=parsed.body,
            labels=parsed.labels,
            priority=parsed.priority,
            team=parsed.team,
            project=parsed.project,
            url=parsed.url,
            repo=parsed.repo,
            recipe=parsed.recipe,
            source=self._source,
            ref=path.name,
            version=version,
            since=stamp.mtime,
        )
        return _Known(stamp=stamp, found=issue)


def show(path: str | Path) -> str:
    """Return a path as one printable line, whatever bytes its names are made of."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _check_text(shown: str, text: str) -> tuple[str, bytes]:
    """Return the key of a submitted text, and its bytes; raise `BadUsage` when it is no issue."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise BadUsage(f"{shown}: is not text: write it as UTF-8") from error
    if len(data) > MAX_BYTES:
        raise BadUsage(f"{shown}: is larger than 1 MiB ({len(data)} bytes): shorten it")
    try:
        return parse_issue(data).key, data
    except Malformed as error:
        raise BadUsage(f"{shown}: {error}") from error


def _is_issue_file(name: str) -> bool:
    return name.endswith(".md") and not name.startswith(".")


def _check_name(name: str) -> None:
    """Refuse names that could not be written into a ledger or given a suffix."""
    if not name.isprintable():
        raise Unreadable("its name has characters that cannot be shown: rename it")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise Unreadable(f"its name is longer than {_MAX_NAME_BYTES} bytes: rename it")


def _check_ref(issue: Issue) -> str:
    """Return the file name an issue is kept under; it must not lead elsewhere."""
    if "/" in issue.ref or "\0" in issue.ref or not _is_issue_file(issue.ref):
        raise SourceFailed(f"{issue.key}: {shorten(issue.ref)} is no name of an issue file")
    return issue.ref


def _namesakes(name: str) -> Iterator[str]:
    """Yield `AR-1.md`, `AR-1.2.md`, `AR-1.3.md` and so on, but not for ever."""
    yield name
    stem = name.removesuffix(".md")
    for number in range(2, _MAX_NAMESAKES):
        yield f"{stem}.{number}.md"


def _find_place(directory: Path, ref: str, key: str, content: bytes) -> Path:
    """Return where a file is to go: where it went before, else the first free place.

    An outcome of this issue with no file to it was interrupted, or its file was taken away.
    """
    for name in _namesakes(ref):
        path = directory / name
        outcome = _read_outcome(_outcome_file(path))
        if os.path.lexists(path):
            if outcome == content:
                return path
        elif outcome is None or _key_of(outcome) == key:
            return path
    raise SourceFailed(f"{show(directory)}: has too many files named {show(ref)}: clear it out")


def _is_known(path: Path) -> bool:
    """Say whether an issue was put away there, be its file there still or not."""
    return os.path.lexists(path) or os.path.lexists(_outcome_file(path))


def _outcome_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.outcome.json")


def _read_outcome(path: Path) -> bytes | None:
    """Return the content of an outcome file; None when there is none; raise `SourceFailed`."""
    try:
        read = read_issue_file(path)
    except Unreadable as error:
        raise SourceFailed(f"{show(path)}: {error}") from error
    return read[0] if read else None


def _key_of(outcome: bytes) -> str | None:
    try:
        return msgspec.json.decode(outcome, type=_Outcome).key
    except msgspec.DecodeError:
        return None


def _encode_outcome(note: OutcomeNote) -> bytes:
    outcome = _Outcome(
        key=note.key,
        state=note.state,
        reason=note.reason,
        attempts=note.attempts,
        rounds=note.rounds,
        ended_at=datetime.fromtimestamp(note.ended_at, UTC).isoformat().replace("+00:00", "Z"),
    )
    return msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n"
