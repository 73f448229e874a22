"""How finished issues read, and how factoryctl gets them from a daemon."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from factoryd.core.events import IssueParked, IssueReopened
from factoryd.flow.past import read_finished, read_issue
from factoryd.wire.answers import HistoryReply
from factoryd.wire.messages import encode_reply
from factoryd.wire.retelling import plain_history, plain_issue
from tests.fakes.daemon import ScriptedDaemon
from tests.fakes.ledger_store import FakeStore
from tests.unit.ctl import Ctl
from tests.unit.samples import attempt_started, claimed, run_starting
from tests.unit.test_history import DONE, KEY, an_attempt
from tests.unit.test_past import put

PARKED = IssueParked(issue=KEY, reason="crashed\x1b[31m")


@pytest.fixture
def store():
    """A ledger with an issue that was parked, came back and was done."""
    one = FakeStore()
    put(one, claimed(), *an_attempt(), PARKED, IssueReopened(issue=KEY, reason="it came back"))
    put(one, claimed(), *an_attempt(run="r2"), *DONE)
    return one


@pytest.fixture
async def daemon(tmp_path, nursery):
    scripted = ScriptedDaemon(tmp_path / "control.sock")
    await nursery.start(scripted.serve)
    return scripted


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path / "control.sock")


def test_a_finished_issue_is_a_line(store):
    head, newest, oldest = plain_history(read_finished(store, None, 10).issues)
    assert head.split() == [
        "issue",
        "outcome",
        "attempts",
        "rounds",
        "cpu",
        "wall",
        "ended",
        "about",
    ]
    assert newest.split(maxsplit=7) == [
        *("AR-1", "done", "1", "1", "0.5s", "8.0s", "1970-01-01T00:00:08.000Z"),
        "Mend AR-1",
    ]
    assert oldest.endswith("crashed\\x1b[31m | Mend AR-1")
    assert plain_history([]) == []


def test_an_issue_is_told_with_its_receipts_and_its_end(store):
    done, parked = read_issue(store, KEY, None, 10).issues
    assert [line.split() for line in plain_issue(done)] == [
        ["AR-1", "done"],
        ["Mend", "AR-1"],
        ["repo", "demo,", "recipe", "pair"],
        ["from", "1970-01-01T00:00:00.000Z", "to", "1970-01-01T00:00:08.000Z"],
        ["wall", "8.0s,", "cpu", "0.5s"],
        ["attempt", "1", "succeeded"],
        ["from", "1970-01-01T00:00:01.000Z", "to", "1970-01-01T00:00:07.000Z"],
        [
            *("run", "round/stage", "result", "exit", "wall", "cpu", "memory", "processes"),
            *("signals", "survivors", "because"),
        ],
        ["r2", "1/0", "succeeded", "0", "2.0s", "0.5s", "-", "3", "-", "0"],
        ["19", "1970-01-01T00:00:08.000Z", "issue-done", "AR-1", "-"],
        ["20", "1970-01-01T00:00:09.000Z", "outcome-written", "AR-1", "-", 'outcome="done"'],
    ]
    assert plain_issue(parked)[0] == "AR-1 parked: crashed\\x1b[31m"


def test_what_is_not_known_yet_is_told_as_unknown():
    store = FakeStore()
    put(store, claimed(), attempt_started())
    (issue,) = read_issue(store, KEY, None, 1).issues
    lines = [line.strip() for line in plain_issue(issue)]
    assert lines[0] == "AR-1 not ended"
    assert lines[3:6] == [
        "from 1970-01-01T00:00:00.000Z to -",
        "wall -, cpu -",
        "attempt 1 goes on",
    ]
    put(store, run_starting("r1"))
    (issue,) = read_issue(store, KEY, None, 1).issues
    assert plain_issue(issue)[-1].split() == ["r1", "1/0", *"--------"]


async def test_history_is_fetched_page_by_page_up_to_the_limit(daemon, ctl, store):
    (one, _) = read_finished(store, None, 2).issues
    full = tuple(replace(one, seq=1000 - number) for number in range(100))
    daemon.when("History", encode_reply(HistoryReply(issues=full)))
    daemon.when("History", encode_reply(HistoryReply(issues=full[:20])))
    done = await ctl("history", "-n", "120", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.splitlines()) == 120
    assert daemon.parameters(0) == {"target": None, "before": None, "limit": 100}
    assert daemon.parameters(1) == {"target": None, "before": 901, "limit": 20}


async def test_history_in_json_is_a_line_for_each_issue_with_all_of_it(daemon, ctl, store):
    reply = read_issue(store, KEY, None, 10)
    daemon.when("History", encode_reply(reply))
    done = await ctl("--json", "history", "AR-1")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        json.loads(msgspec.json.encode(one)) for one in reply.issues
    ]
    assert daemon.parameters() == {"target": "AR-1", "before": None, "limit": 50}


async def test_history_as_text_is_a_table_or_the_whole_story(daemon, ctl, store):
    daemon.when("History", encode_reply(read_finished(store, None, 10)))
    listed = (await ctl("history")).stdout.decode().splitlines()
    assert listed == plain_history(read_finished(store, None, 10).issues)
    told = (await ctl("history", "ar-1")).stdout.decode().splitlines()
    assert told == [
        line for issue in read_issue(store, KEY, None, 2).issues for line in plain_issue(issue)
    ]


async def test_no_history_is_no_answer_and_no_error(daemon, ctl):
    daemon.when("History", encode_reply(HistoryReply(issues=())))
    for arguments in (["history"], ["history", "--json"], ["history", "-n", "0"]):
        done = await ctl(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert len(daemon.calls) == 2
