"""The ledger's file: facts in SQLite, appended in transactions and never changed.

WAL with `synchronous=FULL`: what a commit acknowledged survives a crash of the daemon and of the
machine (https://www.sqlite.org/wal.html, section 2.2).
"""

import os
import sqlite3
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import msgspec

from factoryd.core.errors import IllegalFact, LedgerUnavailable, PermissionDenied
from factoryd.core.events import Entry, Fact, Recorded, decode_fact, encode_fact, kind_of, run_of
from factoryd.core.records import same_issue
from factoryd.core.registry import Registry

SCHEMA_VERSION = 1

LEDGER = "ledger.sqlite"
"""The ledger's name in the state directory."""

_SCHEMA = """
CREATE TABLE fact (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    issue TEXT NOT NULL,
    run TEXT,
    kind TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX fact_issue ON fact (issue, seq);
CREATE TABLE held (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE snapshot (seq INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
"""

_MIGRATIONS = {0: _SCHEMA}
"""What leads from each version to the next (`PRAGMA user_version`)."""


class SqliteStore:
    """A ledger in one file. Not thread-safe: one call at a time, from any thread."""

    def __init__(self, path: Path, *, read_only: bool = False, copy_of: Path | None = None) -> None:
        """Open the file and bring it up to date; create it (0600) where there is none.

        Raises `LedgerUnavailable` for a file that is corrupt, unreadable or from a newer factoryd:
        such a file is left as it is. Errors name the file that it is a copy of, if it is one.
        """
        self._path = copy_of or path
        self._read_only = read_only
        with self._explained("open"):
            if not read_only:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?{_how(path, read_only=read_only)}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self._explained("open"):
                self._prepare()
        except BaseException:
            self._db.close()
            raise

    def load(self) -> tuple[bytes | None, Iterable[Recorded]]:
        """Return the newest snapshot, if any, and the facts after it, oldest first."""
        with self._explained("read"):
            row = self._db.execute("SELECT seq, body FROM snapshot ORDER BY seq DESC").fetchone()
            since, snapshot = row or (0, None)
            return snapshot, self._facts_after(since)

    def append(self, entries: Sequence[Entry]) -> list[Recorded]:
        """Commit all entries in one transaction and return them with their numbers."""
        with self._explained("write"), self._transaction():
            return [self._append_one(entry) for entry in entries]

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """Keep a snapshot of the state after fact `seq`, and drop older snapshots."""
        with self._explained("write"), self._transaction():
            self._db.execute("INSERT OR REPLACE INTO snapshot VALUES (?, ?)", (seq, body))
            self._db.execute("DELETE FROM snapshot WHERE seq < ?", (seq,))

    def read_facts(self, since: int, limit: int, issue: str | None) -> list[Recorded]:
        """Return up to `limit` facts numbered above `since`, oldest first."""
        query = "SELECT seq, at, body FROM fact WHERE seq > ?"
        values: list[int | str] = [since]
        if issue is not None:
            query += " AND issue = ?"
            values.append(same_issue(issue))
        with self._explained("read"):
            rows = self._db.execute(f"{query} ORDER BY seq LIMIT ?", (*values, limit)).fetchall()
        return [self._recorded(*row) for row in rows]

    def read_newest(self, kinds: Sequence[type[Fact]], before: int, limit: int) -> list[Recorded]:
        """Return up to `limit` facts of these kinds numbered below `before`, newest first."""
        tags = [kind_of(kind) for kind in kinds]
        places = ", ".join("?" * len(tags))
        query = f"SELECT seq, at, body FROM fact WHERE kind IN ({places}) AND seq < ?"  # noqa: S608  no text but ours
        with self._explained("read"):
            rows = self._db.execute(
                f"{query} ORDER BY seq DESC LIMIT ?", (*tags, before, limit)
            ).fetchall()
        return [self._recorded(*row) for row in rows]

    def forget(self, issues: Sequence[str], up_to: int, daemon_before: float) -> None:
        """Drop facts up to number `up_to`: of these issues, and of daemons before a moment."""
        with self._explained("write"), self._transaction():
            self._db.executemany(
                "DELETE FROM fact WHERE issue = ? AND seq <= ?",
                [(same_issue(key), up_to) for key in issues],
            )
            self._db.execute(
                "DELETE FROM fact WHERE issue = '' AND seq <= ? AND at < ?", (up_to, daemon_before)
            )

    def close(self) -> None:
        """Close the database; what was committed stays."""
        self._db.close()

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise LedgerUnavailable(
                f"{self._path}: written by a newer factoryd (format {version}, this one knows "
                f"{SCHEMA_VERSION}): start that version, or give another --state-dir"
            )
        if self._read_only:
            self._check_format(version)
            return
        if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 4194304")
        for step in range(version, SCHEMA_VERSION):
            self._db.executescript(
                f"BEGIN; {_MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;"
            )

    def _check_format(self, version: int) -> None:
        if version < SCHEMA_VERSION:
            raise LedgerUnavailable(
                f"{self._path}: is of an older factoryd, or not finished (format {version}, this one "
                f"knows {SCHEMA_VERSION}): start factoryd, which brings it up to date"
            )

    def _append_one(self, entry: Entry) -> Recorded:
        if entry.frees is not None:
            self._db.execute("DELETE FROM held WHERE name = ?", (entry.frees,))
        if entry.takes is not None:
            try:
                self._db.execute("INSERT INTO held VALUES (?)", (entry.takes,))
            except sqlite3.IntegrityError:
                raise IllegalFact(f"{entry.fact.issue}: {entry.takes} is still held") from None
        done = self._db.execute(
            "INSERT INTO fact (at, issue, run, kind, body) VALUES (?, ?, ?, ?, ?)",
            (
                entry.at,
                same_issue(entry.fact.issue),
                run_of(entry.fact),
                kind_of(entry.fact),
                encode_fact(entry.fact).decode(),
            ),
        )
        assert done.lastrowid is not None
        return Recorded(seq=done.lastrowid, at=entry.at, fact=entry.fact)

    def _facts_after(self, since: int) -> Iterator[Recorded]:
        with self._explained("read"):
            cursor = self._db.execute(
                "SELECT seq, at, body FROM fact WHERE seq > ? ORDER BY seq", (since,)
            )
            for row in cursor:
                yield self._recorded(*row)

    def _recorded(self, seq: int, at: float, body: str) -> Recorded:
        try:
            return Recorded(seq=seq, at=at, fact=decode_fact(body))
        except msgspec.DecodeError as error:
            raise LedgerUnavailable(
                f"{self._path}: fact {seq} cannot be read ({error}): start the factoryd that wrote "
                "it, or move the file away to begin anew"
            ) from error

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self, what: str) -> Generator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(
                f"{self._path}: cannot {what} the ledger: {error}: check the disk and its "
                "permissions"
            ) from error
        except sqlite3.DatabaseError as error:
            raise LedgerUnavailable(
                f"{self._path}: cannot {what} the ledger, it is damaged ({error}): restore it from "
                "a backup, or move it away to begin anew"
            ) from error
        except OSError as error:
            raise LedgerUnavailable(
                f"{self._path}: cannot {what} the ledger: {error.strerror}"
            ) from error


def read_registry(state: Path) -> Registry:
    """Return what the ledger of a state directory says, which is left as it is; no ledger: nothing.

    Raises `LedgerUnavailable`. It is a copy that is replayed: SQLite leaves files beside what it
    only reads.
    """
    ledger = state / LEDGER
    try:
        if not ledger.exists():
            return Registry()
        with _open_copy(ledger) as store:
            return Registry.replay(*store.load())
    except OSError as error:
        raise LedgerUnavailable(f"{ledger}: cannot be read: {error.strerror}") from error


@contextmanager
def open_to_read(state: Path) -> Generator[SqliteStore]:
    """Open the ledger of a state directory, which is left as it is with all that lies beside it.

    One that a daemon has open, or had when it was killed, is read where it is, and shows what is
    committed meanwhile; it may lie where nothing can be written (https://www.sqlite.org/wal.html,
    section 4). One that was closed is copied first. Raises `LedgerUnavailable`, also where there is no
    ledger, and `PermissionDenied`.
    """
    ledger = state / LEDGER
    with ExitStack() as held:
        try:
            ledger.open("rb").close()
            store = _open_in_place(ledger)
            if store is None:
                store = held.enter_context(_open_copy(ledger))
            else:
                held.callback(store.close)
        except FileNotFoundError:
            raise LedgerUnavailable(
                f"{ledger}: there is no ledger: no factoryd has worked on {state} yet; give the "
                "--state-dir of the one that is meant"
            ) from None
        except PermissionError as error:
            raise PermissionDenied(
                f"{error.filename}: you may not read it: ask as root or as the user factoryd runs as"
            ) from error
        except OSError as error:
            raise LedgerUnavailable(f"{ledger}: cannot be read: {error.strerror}") from error
        yield store


def _open_in_place(ledger: Path) -> SqliteStore | None:
    """Return a ledger that is open elsewhere, or was when its daemon was killed, else None."""
    if not _is_open(ledger):
        return None
    try:
        return SqliteStore(ledger, read_only=True)
    except LedgerUnavailable:
        if _is_open(ledger):
            raise
        return None  # it was closed this very moment


def _is_open(ledger: Path) -> bool:
    """Say whether what SQLite keeps beside an open ledger is there."""
    return all(Path(f"{ledger}{end}").exists() for end in ("-wal", "-shm"))


def _how(path: Path, *, read_only: bool) -> str:
    """Return in which way SQLite opens a file; readers do not even leave their marks in shared memory."""
    if not read_only:
        return "mode=rw"
    return "mode=ro&readonly_shm=1" if _is_open(path) else "mode=ro"


@contextmanager
def _open_copy(ledger: Path) -> Generator[SqliteStore]:
    with tempfile.TemporaryDirectory(prefix="factoryd-") as directory:
        copy = Path(directory, ledger.name)
        _copy(ledger, copy)
        with closing(SqliteStore(copy, copy_of=ledger)) as store:
            yield store


def _copy(ledger: Path, copy: Path) -> None:
    """Copy a ledger with what is not yet merged into its file; begin again while it changes."""
    parts = [(Path(f"{ledger}{end}"), Path(f"{copy}{end}")) for end in ("", "-wal")]
    before, after = [b""], [b"", b""]
    while before != after:
        before = after
        after = [part.read_bytes() if part.exists() else b"" for part, _ in parts]
    for content, (_, target) in zip(after, parts, strict=True):
        target.write_bytes(content)
