"""The ledger's file when disks are full, files damaged and daemons killed."""

import os
import sqlite3
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from factoryd.adapters.sqlite_store import SCHEMA_VERSION, SqliteStore
from factoryd.core.errors import LedgerUnavailable
from factoryd.core.events import Entry, IssueLeftReady
from tests.unit.samples import claimed

ROOT = Path(__file__).parent.parent.parent


def entry(fact):
    return Entry(at=1.0, fact=fact)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def filled(path):
    """A ledger with a few pages of facts in it, closed in good order."""
    store = SqliteStore(path)
    store.append([entry(claimed(f"AR-{n}")) for n in range(500)])
    store.close()
    return path


def test_the_file_is_for_its_owner_alone(filled):
    assert filled.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("where", [0, 20, 3 * 4096 + 8, 9 * 4096])
def test_a_damaged_file_is_refused_with_one_sentence_and_left_as_it_is(filled, where):
    data = bytearray(filled.read_bytes())
    assert len(data) > where + 4096
    data[where : where + 2048] = b"\xa5" * 2048
    filled.write_bytes(data)
    with pytest.raises(LedgerUnavailable) as refused:
        SqliteStore(filled)
    said = str(refused.value)
    assert said.startswith(f"{filled}: cannot open the ledger, it is damaged (")
    assert "restore it from a backup, or move it away" in said
    assert "\n" not in said
    assert filled.read_bytes() == data


def test_a_file_that_is_no_ledger_at_all_is_refused_and_left_as_it_is(path):
    path.write_text("my shopping list, " * 100)
    with pytest.raises(LedgerUnavailable, match="it is damaged"):
        SqliteStore(path)
    assert path.read_text() == "my shopping list, " * 100


def test_a_ledger_of_a_newer_factoryd_is_refused_and_left_as_it_is(filled):
    with sqlite3.connect(filled) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = filled.read_bytes()
    for read_only in (False, True):
        with pytest.raises(LedgerUnavailable, match="written by a newer factoryd"):
            SqliteStore(filled, read_only=read_only)
    assert filled.read_bytes() == before


def test_a_path_where_no_file_can_be_is_refused_with_the_reason(tmp_path):
    with pytest.raises(LedgerUnavailable, match="No such file or directory"):
        SqliteStore(tmp_path / "missing" / "ledger.sqlite")
    with pytest.raises(LedgerUnavailable, match="Is a directory"):
        SqliteStore(tmp_path)


def test_a_fact_that_this_factoryd_cannot_read_stops_the_start_with_its_number(filled):
    with sqlite3.connect(filled) as db:
        db.execute('UPDATE fact SET body = \'{"type": "from-the-future"}\' WHERE seq = 3')
    db.close()
    store = SqliteStore(filled)
    _, facts = store.load()
    with pytest.raises(LedgerUnavailable, match="fact 3 cannot be read"):
        list(facts)
    store.close()


def test_damage_that_shows_only_while_reading_is_explained_as_well(filled):
    """A reader checks nothing beforehand."""
    data = bytearray(filled.read_bytes())
    with sqlite3.connect(filled) as db:
        page = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'fact'").fetchone()[0]
    db.close()
    data[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    filled.write_bytes(data)
    store = SqliteStore(filled, read_only=True)
    with pytest.raises(LedgerUnavailable, match="it is damaged"):
        list(store.load()[1])
    store.close()


def test_a_reader_sees_what_is_committed_and_may_not_write(filled):
    writer = SqliteStore(filled)
    reader = SqliteStore(filled, read_only=True)
    writer.append([entry(claimed("NEW"))])
    assert len(list(reader.load()[1])) == 501
    with pytest.raises(LedgerUnavailable):
        reader.append([entry(claimed("MINE"))])
    reader.close()
    writer.close()


def test_a_full_file_refuses_a_whole_group_and_takes_it_when_there_is_space(filled):
    store = SqliteStore(filled)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    group = [entry(claimed(f"BIG-{n}")) for n in range(500)]
    with pytest.raises(LedgerUnavailable, match="database or disk is full: check the disk"):
        store.append(group)
    assert len(store.read_facts(0, 10_000, None)) == 500
    store._db.execute("PRAGMA max_page_count = 4294967294")
    store.append(group)
    store.close()
    again = SqliteStore(filled)
    assert len(list(again.load()[1])) == 1000
    again.close()


WRITER = """
import sys
from pathlib import Path
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.events import Entry, IssueLeftReady
store = SqliteStore(Path(sys.argv[1]))
n = 0
while True:
    group = [Entry(at=1.0, fact=IssueLeftReady(issue=f"AR-{n + k}")) for k in range(1 + n % 7)]
    n += len(group)
    print(store.append(group)[-1].seq, flush=True)
"""


@pytest.mark.system
async def test_promise_6_what_a_killed_writer_has_acknowledged_is_in_the_file(path):
    acknowledged = 0
    for _ in range(3):
        seen = await _kill_a_writer_in_the_middle(path)
        store = SqliteStore(path)
        facts = list(store.load()[1])
        store.close()
        assert [one.seq for one in facts] == list(range(1, len(facts) + 1))
        assert len(facts) >= seen > acknowledged
        assert all(isinstance(one.fact, IssueLeftReady) for one in facts)
        acknowledged = seen


async def _kill_a_writer_in_the_middle(path):
    """Return the last number that a writer has acknowledged before it was killed."""
    ours, theirs = os.pipe()
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", WRITER, str(path)]
        run = partial(trio.run_process, command, stdout=theirs, cwd=ROOT, check=False)
        process = await nursery.start(run)
        os.close(theirs)
        heard = b""
        async with trio.lowlevel.FdStream(ours) as stream:
            with trio.fail_after(20):
                while heard.count(b"\n") < 30:
                    heard += await stream.receive_some()
                process.kill()
                async for chunk in stream:
                    heard += chunk
    return int(heard.split(b"\n")[-2])
