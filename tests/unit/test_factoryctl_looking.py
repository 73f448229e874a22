"""The verbs that only look: status, logs, events, health."""

import json

import msgspec
import pytest

from factoryd.wire.answers import EventsReply, FactView, HealthReply, LineView, LogsReply
from factoryd.wire.messages import encode_reply
from tests.fakes.daemon import ScriptedDaemon
from tests.unit.ctl import Ctl, issue, status
from tests.unit.test_factoryctl_offline import beat


@pytest.fixture
async def daemon(tmp_path, nursery):
    scripted = ScriptedDaemon(tmp_path / "control.sock")
    await nursery.start(scripted.serve)
    return scripted


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path / "control.sock")


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


# -------------------------------------------------------------------------------------- status


async def test_status_in_json_is_what_the_daemon_sent(daemon, ctl):
    reply = status(issue(title="\x1b[31mé"))
    daemon.when("Status", encode_reply(reply))
    for arguments in (["--json", "status", "AR-255"], ["status", "AR-255", "--json"]):
        done = await ctl(*arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == msgspec.json.encode(reply) + b"\n"
        assert daemon.parameters() == {"targets": ["AR-255"]}
        assert set(json.loads(done.stdout)) == {
            "daemon",
            "sources",
            "issues",
            "handoffs",
            "counters",
        }


async def test_status_that_is_piped_is_aligned_text(daemon, ctl):
    daemon.when("Status", encode_reply(status(issue())))
    done = await ctl("status")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert b"AR-255" in done.stdout
    assert b"  ar-255-impl" in done.stdout


async def test_status_watched_shows_every_picture_until_the_daemon_leaves(daemon, ctl):
    first, second = encode_reply(status(), continues=True), encode_reply(status(issue()))
    daemon.when("Watch", first, second)
    text = await ctl("status", "--watch")
    assert (text.returncode, text.stdout.count(b"factoryd 0.1.0 running")) == (0, 2)
    documents = lines(await ctl("status", "--watch", "--json"))
    assert [len(document["issues"]) for document in documents] == [0, 1]
    assert daemon.calls[-1].more


async def test_a_huge_status_passes(daemon, ctl):
    reply = status(*(issue(f"AR-{number}", title="x" * 4000) for number in range(2000)))
    daemon.when("Status", encode_reply(reply))
    done = await ctl("status", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["issues"]) == 2000


# ---------------------------------------------------------------------------------------- logs


def output(*texts):
    views = tuple(LineView(offset=10 * n, text=text) for n, text in enumerate(texts, start=1))
    return LogsReply(agent="ar-255-impl", run="r1", lines=views)


async def test_logs_that_are_piped_are_what_the_agent_wrote(daemon, ctl):
    daemon.when("Logs", encode_reply(output("\x1b[31mred\x9b", "", "\u2713")))
    done = await ctl("logs", "ar-255-impl", "-n", "3", "--run", "r1")
    assert done.returncode == 0
    assert done.stdout.decode() == "\x1b[31mred\x9b\n\n\u2713\n"
    assert daemon.parameters() == {
        "target": "ar-255-impl",
        "run": "r1",
        "lines": 3,
        "follow": False,
    }


async def test_logs_on_a_terminal_cannot_steer_it(daemon, ctl):
    daemon.when("Logs", encode_reply(output("\x1b]0;title\x07\ttab\x9b31m")))
    code, shown = await ctl.on_terminal("logs", "ar-255-impl")
    assert (code, shown.expandtabs()) == (0, "\\x1b]0;title\\x07\ttab\\x9b31m\r\n".expandtabs())


async def test_logs_in_json_are_a_document_for_each_line(daemon, ctl):
    more = encode_reply(output("a", "b"), continues=True)
    daemon.when("Logs", more, encode_reply(output("c"), continues=True), encode_reply(output()))
    done = await ctl("logs", "ar-255-impl", "-f", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines(done) == [
        {"agent": "ar-255-impl", "run": "r1", "offset": offset, "text": text}
        for offset, text in [(10, "a"), (20, "b"), (10, "c")]
    ]
    assert daemon.calls[0].more
    assert (daemon.parameters()["lines"], daemon.parameters()["follow"]) == (100, True)


@pytest.mark.parametrize("count", ["-1", "x", "1.5", ""])
async def test_a_number_of_lines_is_a_number(ctl, count):
    done = await ctl("logs", "a", f"-n{count}" if count else "-n")
    assert done.returncode == 2


# -------------------------------------------------------------------------------------- events


def facts(first, last):
    return EventsReply(
        facts=tuple(
            FactView(
                seq=seq,
                at="2026-01-01T12:00:00.000Z",
                kind="issue-done",
                issue="A-1",
                run=None,
                body=msgspec.Raw(b'{"type":"issue-done","issue":"A-1"}'),
            )
            for seq in range(first, last + 1)
        )
    )


async def test_events_are_fetched_page_by_page(daemon, ctl):
    daemon.when("Events", encode_reply(facts(8, 1007)))
    daemon.when("Events", encode_reply(facts(1008, 1010)))
    done = await ctl("events", "--since", "7", "--issue", "A-1", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [fact["seq"] for fact in lines(done)] == list(range(8, 1011))
    assert lines(done)[0] == {
        "seq": 8,
        "at": "2026-01-01T12:00:00.000Z",
        "kind": "issue-done",
        "issue": "A-1",
        "run": None,
        "body": {"type": "issue-done", "issue": "A-1"},
    }
    assert [daemon.parameters(n)["since"] for n in (0, 1)] == [7, 1007]
    assert daemon.parameters()["issue"] == "A-1"


async def test_events_followed_are_shown_as_they_happen(daemon, ctl):
    daemon.when("Events", encode_reply(facts(1, 2), continues=True), encode_reply(facts(3, 3)))
    done = await ctl("events", "-f")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [b"1", b"2", b"3"]
    assert daemon.parameters()["follow"] is True


async def test_no_events_are_no_answer_and_no_error(daemon, ctl):
    daemon.when("Events", encode_reply(EventsReply(facts=())))
    done = await ctl("events")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -------------------------------------------------------------------------------------- health


def health(state="ok", degraded=()):
    return HealthReply(state=state, pid=12, degraded=degraded, heartbeat_age_s=0.2, pulses=())


@pytest.mark.parametrize("verb", ["health", "loop-status"])
async def test_a_healthy_daemon_is_0(daemon, ctl, verb):
    daemon.when("Health", encode_reply(health()))
    done = await ctl(verb)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"ok: factoryd (pid 12), newest heartbeat 0.2s ago\n"
    assert (await ctl(verb, "--json")).stdout == msgspec.json.encode(health()) + b"\n"


async def test_a_degraded_daemon_is_5(daemon, ctl):
    daemon.when("Health", encode_reply(health("degraded", ("source issues",))))
    done = await ctl("health")
    assert done.returncode == 5
    assert b"degraded: source issues" in done.stdout


async def test_health_without_a_daemon_is_3_and_still_an_answer(ctl):
    done = await ctl("health", "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert (document["state"], document["pid"], document["pulses"]) == ("not-running", None, [])
    assert str(ctl.socket) in document["reason"]
    assert (await ctl("health")).stdout == b"not-running\n"


BEATS = {
    "fresh": ({}, 5, "hung", "does not answer"),
    "stale": ({"stale_after_s": 0.0}, 5, "hung", "hangs: its newest heartbeat is"),
    "starting": ({"status": "starting"}, 5, "starting", "is starting and does not answer"),
    "another boot": ({"boot_id": "x"}, 3, "not-running", "before the machine started"),
    "future": ({"boottime": 1e12}, 3, "not-running", "from the future"),
    "dead": ({"start_ticks": 1}, 3, "not-running", "has ended"),
    "garbage": ({"pid": "?"}, 3, "not-running", "is no heartbeat"),
}


@pytest.mark.parametrize(("changes", "expected", "state", "reason"), BEATS.values(), ids=BEATS)
async def test_health_goes_by_the_heartbeat_when_the_socket_is_dead(
    ctl, tmp_path, changes, expected, state, reason
):
    (tmp_path / "heartbeat").write_bytes(msgspec.json.encode(beat(**changes)))
    done = await ctl("health", "--json")
    assert done.returncode == expected
    document = json.loads(done.stdout)
    assert (document["state"], reason in document["reason"]) == (state, True)
    assert reason in done.stderr.decode()


async def test_a_socket_that_talks_nonsense_is_a_daemon_that_hangs(daemon, ctl):
    daemon.when("Health", b"nonsense\0")
    done = await ctl("health")
    assert (done.returncode, done.stdout) == (5, b"hung\n")
