"""A ledger that is only read: where it is while it is open, as a copy once it is closed."""

import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from factoryd.adapters import sqlite_store
from factoryd.adapters.sqlite_store import LEDGER, SqliteStore, open_to_read
from factoryd.core.errors import LedgerUnavailable

ROOT = Path(__file__).parent.parent.parent

WRITER = """
import sys
import tempfile
from pathlib import Path
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.events import Entry
from tests.unit.samples import claimed
store = SqliteStore(Path(sys.argv[1]))
print("open", flush=True)
for line in sys.stdin:
    match line.split():
        case ["add", *keys]:
            store.append([Entry(at=1.0, fact=claimed(key)) for key in keys])
        case ["checkpoint"]:
            assert store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        case ["flood"]:
            print("flooding", flush=True)
            while True:
                store.append([Entry(at=1.0, fact=claimed("A-0"))])
    print("done", flush=True)
store.close()
"""
"""Writes as it is told, and closes the ledger when nobody tells it anything any more."""


class Writer:
    """One who writes a ledger, in a process of its own: SQLite shares a file's state within one."""

    def __init__(self, state: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(state / LEDGER)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._hear("open")

    def _hear(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"

    def tell(self, *words: str, answer: str = "done") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(words)}\n")
        self._process.stdin.flush()
        self._hear(answer)

    def close(self) -> None:
        """Let it close the ledger in good order."""
        self._process.communicate()
        assert self._process.returncode == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def writers(tmp_path):
    started: list[Writer] = []

    def start():
        started.append(Writer(tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def writer(writers):
    one = writers()
    one.tell("add", "A-1", "A-2")
    return one


def keys(store):
    return [one.fact.issue for one in store.read_facts(0, 100, None)]


def beside(state):
    """Return all that lies in a directory, to the byte and the moment of its last change."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in state.iterdir()
    }


def test_an_open_ledger_is_read_where_it_is_and_nothing_there_changes(tmp_path, writer):
    before = beside(tmp_path)
    assert set(before) == {LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm"}
    with open_to_read(tmp_path) as reader:
        assert keys(reader) == ["A-1", "A-2"]
        assert beside(tmp_path) == before
        writer.tell("add", "A-3")
        assert keys(reader) == ["A-1", "A-2", "A-3"]


def test_a_reader_who_takes_their_time_keeps_nobody_from_writing_or_closing(
    tmp_path, writer, writers
):
    with open_to_read(tmp_path) as reader:
        assert len(keys(reader)) == 2
        writer.tell("add", "A-3")
        writer.tell("checkpoint")
        writer.close()
        writers().tell("add", "A-4")
        assert keys(reader) == ["A-1", "A-2", "A-3", "A-4"]


def test_a_closed_ledger_is_read_and_nothing_is_left_anywhere(tmp_path, writer, monkeypatch):
    scratch = tmp_path.with_name("scratch")
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    writer.close()
    before = beside(tmp_path)
    assert set(before) == {LEDGER}
    with open_to_read(tmp_path) as reader:
        assert keys(reader) == ["A-1", "A-2"]
    assert beside(tmp_path) == before
    assert list(scratch.iterdir()) == []


def test_what_a_killed_writer_committed_is_read_and_nothing_there_changes(
    tmp_path, writer, writers
):
    writer.kill()
    before = beside(tmp_path)
    assert before[f"{LEDGER}-wal"][0], "its newest facts are not in the main file yet"
    with open_to_read(tmp_path) as reader:
        assert keys(reader) == ["A-1", "A-2"]
        assert beside(tmp_path) == before
        writers().tell("add", "A-3")
        assert keys(reader) == ["A-1", "A-2", "A-3"], "those of the next one, too"


def test_a_ledger_whose_shared_memory_is_lost_is_read_as_well(tmp_path, writer):
    """As in a backup."""
    writer.kill()
    (tmp_path / f"{LEDGER}-shm").unlink()
    before = beside(tmp_path)
    with open_to_read(tmp_path) as reader:
        assert keys(reader) == ["A-1", "A-2"]
    assert beside(tmp_path) == before


def test_a_ledger_that_is_closed_while_it_is_being_opened_is_read_all_the_same(
    tmp_path, writer, monkeypatch
):
    def close_first(path, *, read_only):
        writer.close()
        monkeypatch.undo()
        return "mode=ro&readonly_shm=1"

    monkeypatch.setattr(sqlite_store, "_how", close_first)
    with open_to_read(tmp_path) as reader:
        assert keys(reader) == ["A-1", "A-2"]


def test_a_ledger_that_is_never_at_rest_is_read(tmp_path, writer):
    writer.tell("flood", answer="flooding")
    seen = [0]
    until = time.monotonic() + 20
    while len(seen) < 20 or seen[-1] < 10:
        assert time.monotonic() < until
        with open_to_read(tmp_path) as reader:
            seen.append(len(reader.read_facts(0, 1 << 40, None)))
    assert seen == sorted(seen)


def test_where_there_is_no_ledger_none_is_made(tmp_path):
    for state in (tmp_path, tmp_path / "missing"):
        with pytest.raises(LedgerUnavailable, match="there is no ledger") as missing:
            with open_to_read(state):
                raise AssertionError
        assert str(missing.value).startswith(str(state / LEDGER))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_ledger_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / LEDGER).write_text("my shopping list, " * 100)
    before = beside(tmp_path)
    with pytest.raises(LedgerUnavailable, match="it is damaged") as damaged, open_to_read(tmp_path):
        raise AssertionError
    assert str(damaged.value).startswith(f"{tmp_path / LEDGER}: cannot")
    assert beside(tmp_path) == before
    (tmp_path / LEDGER).unlink()
    (tmp_path / LEDGER).mkdir()
    with pytest.raises(LedgerUnavailable, match="Is a directory"), open_to_read(tmp_path):
        raise AssertionError


def test_an_open_ledger_of_an_older_factoryd_is_not_brought_up_to_date_by_a_reader(
    tmp_path, writer
):
    writer.kill()
    with sqlite3.connect(tmp_path / LEDGER) as db:
        db.execute("PRAGMA user_version = 0")
    with pytest.raises(LedgerUnavailable, match=r"older factoryd.*start factoryd"):
        with open_to_read(tmp_path):
            raise AssertionError
    db.close()


def test_a_reader_may_not_write(tmp_path, writer):
    with open_to_read(tmp_path) as reader, pytest.raises(LedgerUnavailable, match="readonly"):
        reader.save_snapshot(1, b"mine")
    assert isinstance(reader, SqliteStore)
