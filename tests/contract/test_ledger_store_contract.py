"""What every `ports.LedgerStore` must do. The fake and the real one sit the same exam."""

import pytest

from factoryd.adapters.faults import Act, Fault, FaultyStore
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.errors import IllegalFact
from factoryd.core.events import (
    AnyFact,
    AttemptStarted,
    DaemonStarted,
    Entry,
    IssueClaimed,
    RunStarting,
)
from factoryd.core.registry import Draft, Registry
from tests.fakes.ledger_store import FakeStore
from tests.unit.samples import (
    attempt_ended,
    attempt_started,
    claimed,
    one_of_each,
    run_emptied,
    run_starting,
)


@pytest.fixture(params=["real", "real, with a fault to come", "fake"])
def opened(request, tmp_path):
    """A function that opens the store anew, as the next daemon would."""
    stores: list[SqliteStore] = []
    lasting = FakeStore()

    def open_again():
        for store in stores:
            store.close()
        if request.param == "fake":
            return lasting
        stores.append(SqliteStore(tmp_path / "ledger.sqlite"))
        if "fault" in request.param:
            return FaultyStore(stores[-1], Fault(act=Act.DIE_AFTER, kind="run-started", number=99))
        return stores[-1]

    yield open_again
    for store in stores:
        store.close()


def entry(fact, at=1.0, takes=None, frees=None):
    return Entry(at=at, fact=fact, takes=takes, frees=frees)


def facts_of(store):
    return [one.fact for one in store.read_facts(0, 1000, None)]


def test_a_new_store_is_empty(opened):
    snapshot, facts = opened().load()
    assert snapshot is None
    assert list(facts) == []


def test_facts_are_numbered_in_order_and_come_back_as_they_went_in(opened):
    store = opened()
    first = store.append([entry(fact, at=float(n)) for n, fact in enumerate(one_of_each())])
    second = store.append([entry(claimed("AR-2"), at=99.5)])
    recorded = [*first, *second]
    assert [one.seq for one in recorded] == list(range(1, len(recorded) + 1))
    assert [one.fact for one in recorded] == [*one_of_each(), claimed("AR-2")]
    store = opened()
    snapshot, loaded = store.load()
    assert snapshot is None
    assert list(loaded) == recorded == store.read_facts(0, 1000, None)


def test_numbers_go_on_where_they_ended_even_when_the_newest_facts_are_forgotten(opened):
    store = opened()
    newest = store.append([entry(claimed()), entry(attempt_started())])[-1].seq
    store.forget(["AR-1"], newest, 0.0)
    assert facts_of(store) == []
    assert opened().append([entry(claimed())])[0].seq == newest + 1


def test_a_name_is_held_by_one_owner_until_it_is_freed(opened):
    store = opened()
    store.append([entry(run_starting(), takes="agent:a")])
    store = opened()
    with pytest.raises(IllegalFact, match="held"):
        store.append([entry(run_starting("second"), takes="agent:a")])
    store.append([entry(run_emptied(), frees="agent:a")])
    store.append([entry(run_starting("second"), takes="agent:a")])
    assert len(facts_of(store)) == 3


def test_a_name_may_be_taken_and_freed_and_taken_again_in_one_group(opened):
    store = opened()
    store.append(
        [
            entry(attempt_started(), takes="attempt:ar-1"),
            entry(attempt_ended(), frees="attempt:ar-1"),
            entry(attempt_started(attempt=2), takes="attempt:ar-1"),
        ]
    )
    with pytest.raises(IllegalFact):
        store.append([entry(attempt_started(attempt=3), takes="attempt:ar-1")])


def test_of_a_group_with_one_refused_fact_nothing_is_committed(opened):
    store = opened()
    store.append([entry(run_starting(), takes="agent:a")])
    with pytest.raises(IllegalFact):
        store.append(
            [
                entry(claimed("AR-2"), takes="other"),
                entry(run_starting("second"), takes="agent:a"),
                entry(claimed("AR-3")),
            ]
        )
    assert facts_of(store) == [run_starting()]
    store.append([entry(claimed("AR-2"), takes="other")])


def test_promise_5_the_store_itself_refuses_a_second_live_attempt_and_a_second_live_run(opened):
    """Even when the registry is fooled: here it knows nothing of what went before."""
    store = opened()
    life: list[AnyFact] = [claimed(), attempt_started(), run_starting()]
    draft = Draft(Registry())
    store.append([draft.add(fact, 1.0) for fact in life])
    for group in (life[:2], [life[2]]):
        fooled = Draft(Registry())
        entries = [fooled.add(fact, 2.0) for fact in life]
        with pytest.raises(IllegalFact, match="still held"):
            opened().append([one for one in entries if one.fact in group])


def test_a_snapshot_bounds_what_is_loaded_and_only_the_newest_is_kept(opened):
    store = opened()
    store.append([entry(claimed(f"AR-{n}")) for n in range(1, 6)])
    store.save_snapshot(2, b"two")
    store.save_snapshot(4, b"four")
    snapshot, facts = opened().load()
    assert snapshot == b"four"
    assert [one.seq for one in facts] == [5]


def test_an_older_snapshot_that_comes_late_does_not_replace_the_newest(opened):
    store = opened()
    store.append([entry(claimed(f"AR-{n}")) for n in range(1, 4)])
    store.save_snapshot(3, b"three")
    store.save_snapshot(2, b"two")
    assert opened().load()[0] == b"three"


def test_a_snapshot_of_the_same_moment_replaces_the_one_before(opened):
    store = opened()
    store.save_snapshot(0, b"one")
    store.save_snapshot(0, b"two")
    assert opened().load()[0] == b"two"


def test_facts_are_read_from_a_number_on_in_parts_and_by_issue_in_any_spelling(opened):
    store = opened()
    store.append([entry(claimed(key)) for key in ("AR-1", "AR-2", "ar-1", "AR-3", "AR-1")])
    assert [one.seq for one in store.read_facts(1, 2, None)] == [2, 3]
    assert [one.seq for one in store.read_facts(0, 10, "Ar-1")] == [1, 3, 5]
    assert [one.seq for one in store.read_facts(1, 1, "AR-1")] == [3]
    assert store.read_facts(5, 10, None) == []


def test_the_newest_facts_of_some_kinds_are_read_backwards_and_in_parts(opened):
    store = opened()
    store.append([entry(fact) for fact in (claimed("AR-1"), run_starting(), claimed("AR-2"))])
    store.append([entry(fact) for fact in (attempt_started(), run_starting("second"))])
    wanted = [IssueClaimed, RunStarting]
    assert [one.seq for one in store.read_newest(wanted, 99, 10)] == [5, 3, 2, 1]
    assert [one.seq for one in store.read_newest(wanted, 5, 2)] == [3, 2]
    assert store.read_newest([AttemptStarted], 5, 1)[0].fact == attempt_started()
    assert store.read_newest(wanted, 1, 10) == store.read_newest([], 99, 10) == []


def test_forgetting_drops_facts_of_those_issues_up_to_a_number_and_of_old_daemons(opened):
    store = opened()
    daemon = DaemonStarted(pid=1, version="1", boot_id="boot")
    store.append([entry(daemon, at=1.0), entry(daemon, at=5.0)])
    store.append([entry(claimed(key), at=1.0) for key in ("AR-1", "AR-2", "ar-1")])
    store.append([entry(claimed("AR-1"), at=1.0), entry(daemon, at=2.0)])
    store.forget(["ar-1"], 5, 3.0)
    assert [one.seq for one in opened().read_facts(0, 100, None)] == [2, 4, 6, 7]


def test_a_fact_that_cannot_be_stored_commits_nothing_and_breaks_nothing(opened):
    store = opened()
    with pytest.raises(UnicodeEncodeError):
        store.append([entry(claimed("AR-1"), takes="x"), entry(claimed("AR-\udcff"))])
    store.append([entry(claimed("AR-2"), takes="x")])
    assert facts_of(store) == [claimed("AR-2")]
