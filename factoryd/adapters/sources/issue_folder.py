"""The five directories of a folder of issues: what lies in them, how files move between them."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
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
    show,
    stamp_of,
    sync_directory,
    write_new,
)
from factoryd.adapters.sources.outcome_files import (
    encode_outcome,
    find_place,
    is_known,
    is_outcome_of,
    namesakes,
    outcome_file,
    read_outcome,
)
from factoryd.core.errors import BadUsage, SourceFailed
from factoryd.core.model import Closed, Data, Issue, IssueState, Listing, OutcomeNote, Problem

_ENDS = {
    IssueState.DONE: "done",
    IssueState.PARKED: "failed",
    IssueState.CANCELLED: "cancelled",
}
_MAX_NAME_BYTES = 200  # leaves room for what is appended
_SETTLED_AFTER_S = 0.1  # coarser than the clock that stamps files
_CACHE_BYTES = 64 * 1024 * 1024


class _Known(Data, frozen=True, kw_only=True):
    """What a file said when it had this stamp."""

    stamp: Stamp
    found: Issue | Problem


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

    def find_closed(self, claimed: Sequence[Issue]) -> list[Closed]:
        """Return which issues' files are in neither `active/` nor `ready/`, and where they were put.

        A file there with an outcome file is not meant: that is how an issue of that name ended before.
        """
        there = (self.active, self.ready)
        return [
            Closed(key=issue.key, outcome=self._find_end(issue))
            for issue in claimed
            if not any(os.path.lexists(directory / _check_ref(issue)) for directory in there)
        ]

    def _find_end(self, issue: Issue) -> IssueState | None:
        for state, directory in self._ends.items():
            if self._is_put_there(directory / issue.ref, issue.key):
                return state
        return None

    def _is_put_there(self, path: Path, key: str) -> bool:
        """Say whether a person put the file of an issue there, whose outcome is still to be told."""
        return not os.path.lexists(outcome_file(path)) and self._load_if(path, key) is not None

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
        where they put it, and if that is where it is to go, its outcome is written beside it.
        """
        ref = _check_ref(issue)
        directory = self._ends.get(note.state)
        if directory is None:
            raise SourceFailed(f"{note.key}: {note.state} is no outcome to write back")
        content = encode_outcome(note)
        target = directory / ref
        if os.path.lexists(self.active / ref) or not self._is_put_there(target, issue.key):
            target = find_place(directory, ref, note.key, content)
        outcome = outcome_file(target)
        if read_outcome(outcome) != content:
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
        that is in `ready/` stays. An outcome that no file lies beside is of this end, too, and
        removed. Raise `SourceFailed` when there is no file, or one is in the way.
        """
        target = self.ready / _check_ref(issue)
        places = [self.active / issue.ref]
        for directory in self._ends.values():
            places += itertools.takewhile(is_known, map(directory.joinpath, namesakes(issue.ref)))
        found = {path: known.stamp for path in places if (known := self._load_if(path, issue.key))}
        if self._load_if(target, issue.key) is not None:
            _remove_lonely_outcomes(places, issue.key)
            return
        if not found:
            raise SourceFailed(f"{show(target)}: {issue.key} lies nowhere: put its file there")
        source = max(found, key=lambda path: found[path].changed)
        try:
            move(source, target)
        except FileExistsError as error:
            raise SourceFailed(f"{show(target)}: is in the way: move it elsewhere") from error
        _remove_lonely_outcomes(places, issue.key)
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
        for file_name in namesakes(f"{key}.md"):
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


def _remove_lonely_outcomes(places: Iterable[Path], key: str) -> None:
    """Remove the outcomes of an issue that no file lies beside."""
    for path in places:
        if not os.path.lexists(path) and is_outcome_of(outcome_file(path), key):
            outcome_file(path).unlink(missing_ok=True)


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
