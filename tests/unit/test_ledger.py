"""The ledger's task: check, commit, apply, tell, in that order and whatever the disk does."""

import subprocess
import threading
from contextlib import asynccontextmanager, closing, suppress

import pytest
import trio

from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.errors import IllegalFact, LedgerUnavailable
from factoryd.core.events import AnyFact, IssueLeftReady, IssueStopping, RunStarting
from factoryd.core.model import IssueState
from factoryd.core.registry import Registry
from factoryd.flow import ledger as ledger_module
from factoryd.flow.ledger import MANY, Ledger
from tests.fakes.clock import StillClock
from tests.fakes.ledger_store import FakeStore
from tests.fakes.threads import run_inline
from tests.unit.samples import (
    AGENT,
    attempt_started,
    claimed,
    handoff_made,
    run_emptied,
    run_starting,
)


@pytest.fixture(params=["sqlite", "fake"])
def store(request, tmp_path):
    store = FakeStore() if request.param == "fake" else SqliteStore(tmp_path / "ledger.sqlite")
    yield store
    store.close()


@asynccontextmanager
async def serving(store):
    """A ledger that serves until the block ends."""
    ledger = Ledger(store, Registry.replay(*store.load()), StillClock())
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        yield ledger
        nursery.cancel_scope.cancel(reason="the test is over")


def committed(store):
    return [one.fact for one in store.read_facts(0, 10_000, None)]


async def until(true):
    with trio.fail_after(10):
        while not true():  # noqa: ASYNC110  the ledger announces no trouble
            await trio.sleep(0.001)


class Gate:
    """Holds a store's commits back until it is opened."""

    def __init__(self, store):
        self.reached = threading.Event()
        self.open = threading.Event()
        self._append = store.append
        store.append = self

    def __call__(self, entries):
        self.reached.set()
        assert self.open.wait(10)
        return self._append(entries)

    async def wait_reached(self):
        await trio.to_thread.run_sync(self.reached.wait, 10)


class Groups:
    """Counts a store's commits."""

    def __init__(self, store):
        self.count = 0
        self._append = store.append
        store.append = self

    def __call__(self, entries):
        self.count += 1
        return self._append(entries)


# ------------------------------------------------------------- check, commit, apply, tell


async def test_promise_4_a_fact_is_applied_and_told_only_after_it_is_committed(
    store, nursery, caplog
):
    caplog.set_level("INFO")
    gate = Gate(store)
    async with serving(store) as ledger:
        done, told = trio.Event(), trio.Event()

        async def record():
            await ledger.record(claimed())
            done.set()

        async def watch():
            await ledger.wait_beyond(0)
            assert ledger.registry.issue("AR-1") is not None, "told before it was applied"
            told.set()

        nursery.start_soon(watch)
        nursery.start_soon(record)
        await gate.wait_reached()
        await trio.testing.wait_all_tasks_blocked()
        assert ledger.registry.issue("AR-1") is None
        assert ledger.registry.seq == 0
        assert not done.is_set()
        assert not told.is_set()
        assert "claimed" not in caplog.text
        gate.open.set()
        with trio.fail_after(5):
            await done.wait()
            await told.wait()
        assert committed(store) == [claimed()]
        assert "AR-1: claimed: Mend AR-1" in caplog.text


async def test_promise_4_an_illegal_fact_reaches_neither_the_store_nor_the_state(store):
    async with serving(store) as ledger:
        await ledger.record(claimed())
        before = ledger.registry.snapshot()
        with pytest.raises(IllegalFact):
            await ledger.record(IssueLeftReady(issue="AR-1"), run_starting(), claimed("AR-2"))
        assert ledger.registry.snapshot() == before
        assert committed(store) == [claimed()]


async def test_one_illegal_fact_in_a_group_costs_only_its_own_request(store, nursery):
    gate = Gate(store)
    refused: list[tuple[AnyFact, ...]] = []

    async def record(*facts):
        try:
            await ledger.record(*facts)
        except IllegalFact:
            refused.append(facts)

    async with serving(store) as ledger:
        async with trio.open_nursery() as asking:
            asking.start_soon(record, claimed("FIRST"))
            await gate.wait_reached()
            for facts in (
                [claimed("AR-1")],
                [claimed("AR-2"), claimed("AR-2")],
                [attempt_started("AR-1")],
                [run_starting(key="NOBODY")],
                [claimed("AR-3"), attempt_started("AR-3")],
            ):
                asking.start_soon(record, *facts)
                await trio.testing.wait_all_tasks_blocked()
            gate.open.set()
    assert sorted(len(facts) for facts in refused) == [1, 2]
    assert {one.issue for one in committed(store)} == {"FIRST", "AR-1", "AR-3"}
    assert Registry.replay(*store.load()).snapshot() == ledger.registry.snapshot()


async def test_who_is_refused_finds_what_it_contradicts_applied(store, nursery):
    gate = Gate(store)
    states = []
    async with serving(store) as ledger:

        async def refused():
            with pytest.raises(IllegalFact):
                await ledger.record(attempt_started())
            states.append(ledger.registry.issues["ar-1"].state)

        nursery.start_soon(ledger.record, claimed("AR-9"))
        await gate.wait_reached()
        for fact in (claimed(), attempt_started(), IssueStopping(issue="AR-1", reason="asked")):
            nursery.start_soon(ledger.record, fact)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(refused)
        await trio.testing.wait_all_tasks_blocked()
        gate.open.set()
        await until(lambda: states)
    assert states == [IssueState.STOPPING]


@pytest.mark.parametrize("fact", [attempt_started("AR-2"), run_starting("other", key="AR-2")])
async def test_promise_5_a_held_name_is_refused_even_when_the_registry_is_fooled(store, fact):
    """A run of another issue, or an attempt, that the registry has forgotten."""
    async with serving(store) as ledger:
        await ledger.record(claimed(), attempt_started(), run_starting())
        await ledger.record(claimed("AR-2"))
        if isinstance(fact, RunStarting):
            await ledger.record(attempt_started("AR-2"))
            old = ledger.registry.issues["ar-1"]
            ledger.registry.issues["ar-1"] = type(old)(issue=old.issue, state=old.state, since=1.0)
        else:
            await ledger.record(fact)
            record = ledger.registry.issues["ar-2"]
            fooled = {"state": IssueState.CLAIMED, "attempt_open": False}
            ledger.registry.issues["ar-2"] = type(record)(issue=record.issue, since=1.0, **fooled)
        before = committed(store)
        async with trio.open_nursery() as together:
            together.start_soon(ledger.record, claimed("AR-3"))
            with pytest.raises(IllegalFact, match="still held"):
                await ledger.record(fact)
        assert committed(store) == [*before, claimed("AR-3")]


async def test_a_name_is_free_again_once_its_tree_is_proven_empty(store):
    async with serving(store) as ledger:
        await ledger.record(claimed(), attempt_started(), run_starting())
        with pytest.raises(IllegalFact):
            await ledger.record(run_starting("second"))
        await ledger.record(run_emptied())
        await ledger.record(run_starting("second"))
        await ledger.record(handoff_made("second"))
        with pytest.raises(IllegalFact, match="not proven empty"):
            await ledger.record(run_starting("third"))
        assert AGENT in ledger.registry.handoffs["second"].place.agent


async def test_many_at_once_are_committed_in_few_groups_and_none_is_lost(store):
    groups = Groups(store)
    gate = Gate(store)
    async with serving(store) as ledger, trio.open_nursery() as asking:
        asking.start_soon(ledger.record, claimed("FIRST"))
        await gate.wait_reached()
        for n in range(2000):
            asking.start_soon(ledger.record, claimed(f"AR-{n}"))
        await trio.testing.wait_all_tasks_blocked()
        gate.open.set()
    assert len(committed(store)) == 2001
    assert groups.count <= 2001 / 200


@pytest.fixture
def no_threads(monkeypatch):
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)


async def record_side_by_side(ledger, callers, times):
    """Have so many record at once, each of them so many times in a row."""

    async def record(name):
        for n in range(times):
            await ledger.record(claimed(f"{name}-{n}"))

    async with trio.open_nursery() as asking:
        for name in range(callers):
            asking.start_soon(record, name)


async def test_a_burst_that_comes_back_is_one_group_each_time(autojump_clock, no_threads, store):
    groups = Groups(store)
    async with serving(store) as ledger:
        began = trio.current_time()
        await record_side_by_side(ledger, callers=20, times=5)
        assert trio.current_time() == began, "all are there: nobody is waited for"
        assert len(committed(store)) == 100
        assert groups.count <= 7


async def test_after_a_group_facts_gather_for_a_moment(autojump_clock, no_threads, store):
    groups = Groups(store)

    async def record(key, after_s):
        await trio.sleep(after_s)
        await ledger.record(claimed(key))

    async with serving(store) as ledger:
        began = trio.current_time()
        async with trio.open_nursery() as asking:
            for n in range(50):
                asking.start_soon(record, f"AR-{n}", 0)
            for n in range(40):
                asking.start_soon(record, f"AR-{n + 50}", n * ledger_module.GATHER_S / 50)
        assert len(committed(store)) == 90
        assert groups.count <= 4
        assert trio.current_time() - began == pytest.approx(ledger_module.GATHER_S)


async def test_few_who_record_at_once_wait_for_no_others(autojump_clock, no_threads, store):
    async with serving(store) as ledger:
        began = trio.current_time()
        await record_side_by_side(ledger, callers=MANY - 1, times=100)
        assert trio.current_time() == began


# ----------------------------------------------------------------------------- cancellation


async def test_recording_is_not_cancelled_halfway(store):
    gate = Gate(store)
    async with serving(store) as ledger:
        with trio.CancelScope() as scope:
            scope.cancel(reason="in a hurry")
            gate.open.set()
            await ledger.record(claimed())
        assert not scope.cancelled_caught
        assert committed(store) == [claimed()]


async def test_a_ledger_that_is_stopped_finishes_its_group_and_refuses_the_rest(store):
    gate = Gate(store)
    answers: dict[str, str] = {}

    async def record(key):
        try:
            await ledger.record(claimed(key))
            answers[key] = "recorded"
        except LedgerUnavailable as error:
            answers[key] = str(error)

    async with trio.open_nursery() as asking:
        ledger = Ledger(store, Registry(), StillClock())
        async with trio.open_nursery() as services:
            await services.start(ledger.run)
            asking.start_soon(record, "AR-1")
            await gate.wait_reached()
            for n in range(2, 1500):
                asking.start_soon(record, f"AR-{n}")
            await trio.testing.wait_all_tasks_blocked()
            services.cancel_scope.cancel(reason="stop")
            gate.open.set()
    refused = {key for key, answer in answers.items() if answer == "the ledger is closed"}
    assert answers["AR-1"] == "recorded"
    assert len(answers) == 1499
    assert {one.issue for one in committed(store)} == set(answers) - refused
    with pytest.raises(LedgerUnavailable, match="closed"):
        await ledger.record(claimed("LATE"))


async def test_a_fact_that_cannot_be_stored_costs_only_its_own_request(store):
    async with serving(store) as ledger, trio.open_nursery() as asking:
        for key in ("AR-1", "AR-2"):
            asking.start_soon(ledger.record, claimed(key))
        with pytest.raises(UnicodeEncodeError):
            await ledger.record(claimed("AR-\udcff"))
    assert {one.issue for one in committed(store)} == {"AR-1", "AR-2"}


# -------------------------------------------------------------------------------- full disks


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 8 MB that is this test's own, and a way to fill and empty it."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(small)], check=True
    )
    yield small
    subprocess.run(["umount", "--lazy", str(small)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.system
async def test_a_full_disk_loses_no_fact_that_was_acknowledged(full_disk, monkeypatch, caplog):
    monkeypatch.setattr(ledger_module, "RETRY_DELAY_S", 0.01)
    ballast, acknowledged = full_disk / "ballast", []
    with closing(SqliteStore(full_disk / "ledger.sqlite")) as store:
        async with serving(store) as ledger:

            async def work():
                for n in range(200):
                    await ledger.record(claimed(f"AR-{n}"))
                    acknowledged.append(f"AR-{n}")

            await ledger.record(claimed("FIRST"))
            fill(ballast)
            async with trio.open_nursery() as working:
                working.start_soon(work)
                await until(lambda: ledger.trouble is not None)
                said = str(ledger.trouble)
                assert "disk is full" in said or "disk I/O error" in said
                waited = len(acknowledged)
                await trio.sleep(0.1)
                assert len(acknowledged) == waited < 200, "it goes on as if nothing were"
                assert len(await ledger.read(0, 1000, None)) == waited + 1
                ballast.unlink()
                await until(lambda: len(acknowledged) == 200)
            assert ledger.trouble is None
    with closing(SqliteStore(full_disk / "ledger.sqlite")) as store:
        assert [one.fact.issue for one in store.load()[1]] == ["FIRST", *acknowledged]
    assert "facts cannot be written, dispatching stops" in caplog.text
    assert "facts can be written again" in caplog.text


async def test_while_the_disk_refuses_recording_waits_and_says_why(monkeypatch):
    monkeypatch.setattr(ledger_module, "RETRY_DELAY_S", 0.001)
    store = FakeStore()
    async with serving(store) as ledger:
        store.refusal = "/state: the disk is full"
        async with trio.open_nursery() as asking:
            asking.start_soon(ledger.record, claimed())
            await until(lambda: ledger.trouble is not None)
            assert ledger.trouble == "/state: the disk is full"
            assert ledger.registry.issue("AR-1") is None
            store.refusal = None
        assert ledger.trouble is None
        assert committed(store) == [claimed()]


async def test_a_daemon_that_gives_up_waits_no_longer_for_a_disk_that_refuses():
    store = FakeStore()
    async with serving(store) as ledger:
        store.refusal = "/state: the disk is full"
        async with trio.open_nursery() as asking:

            async def record():
                with pytest.raises(LedgerUnavailable, match="the disk is full"):
                    await ledger.record(claimed())

            asking.start_soon(record)
            await until(lambda: ledger.trouble is not None)
            ledger.give_up()
        with pytest.raises(LedgerUnavailable):
            await ledger.record(claimed())
        assert committed(store) == []
        store.refusal = None
        await ledger.record(claimed("AR-2"))
        assert committed(store) == [claimed("AR-2")]


# --------------------------------------------------------------------- snapshots, forgetting


def load_whole(store):
    snapshot, facts = store.load()
    return snapshot, list(facts)


async def test_a_start_replays_no_more_than_the_facts_since_the_last_snapshot(store, monkeypatch):
    monkeypatch.setattr(ledger_module, "SNAPSHOT_EVERY", 10)
    async with serving(store) as ledger:
        for n in range(35):
            await ledger.record(claimed(f"AR-{n}"))
            snapshot, left = await ledger.consult(load_whole)
            assert len(left) < 11
            assert Registry.replay(snapshot, left).snapshot() == ledger.registry.snapshot()
        await ledger.snapshot()
    snapshot, facts = store.load()
    assert list(facts) == []
    assert Registry.replay(snapshot, []).seq == 35


async def test_a_snapshot_that_cannot_be_stored_stops_nothing(monkeypatch, caplog):
    monkeypatch.setattr(ledger_module, "SNAPSHOT_EVERY", 2)
    store = FakeStore()

    def refuse(seq, body):
        raise LedgerUnavailable("no space for a snapshot")

    store.save_snapshot = refuse  # type: ignore[method-assign]
    async with serving(store) as ledger:
        for n in range(5):
            await ledger.record(claimed(f"AR-{n}"))
    assert len(committed(store)) == 5
    assert "no space for a snapshot" in caplog.text


async def test_no_fact_can_concern_an_issue_while_it_is_being_forgotten(store):
    async with serving(store) as ledger:
        await ledger.record(claimed())
        gate = Gate(store)
        async with trio.open_nursery() as asking:
            asking.start_soon(ledger.record, IssueLeftReady(issue="AR-1"))
            await gate.wait_reached()
            forgotten = []

            async def forget():
                forgotten.extend(await ledger.forget(lambda known: list(known.issues), 0.0))

            asking.start_soon(forget)
            await trio.testing.wait_all_tasks_blocked()
            assert forgotten == []
            gate.open.set()
        assert forgotten == ["ar-1"]
        with pytest.raises(IllegalFact):
            await ledger.record(IssueLeftReady(issue="AR-1"))
    assert committed(store) == []
    assert Registry.replay(*store.load()).issues == {}


async def test_facts_are_read_back_by_number_and_issue(store):
    async with serving(store) as ledger:
        await ledger.record(claimed("AR-1"), claimed("AR-2"), IssueLeftReady(issue="AR-1"))
        assert [one.seq for one in await ledger.read(1, 10, None)] == [2, 3]
        assert [one.seq for one in await ledger.read(0, 10, "ar-1")] == [1, 3]


async def test_recording_nothing_is_nothing(store):
    async with serving(store) as ledger:
        await ledger.record()
        assert committed(store) == []
