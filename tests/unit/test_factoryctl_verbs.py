"""Every verb in trouble, and the verbs that change something: submit, kill, shutdown."""

import json
import socket
import subprocess
import time

import msgspec
import pytest
import trio

from factoryd.wire.answers import KillReply, ShutdownReply, SubmitReply
from factoryd.wire.framing import ERROR_EXITS, INTERFACE, MAX_REQUEST_BYTES, SERVICE_INTERFACE
from factoryd.wire.messages import Reason, encode_error, encode_reply
from tests.fakes.daemon import Act, ScriptedDaemon
from tests.unit.ctl import ROOT, Ctl, environ, killed
from tests.unit.test_factoryctl_offline import beat

VERBS = {
    "Status": ["status"],
    "Submit": ["submit", "-"],
    "Kill": ["kill", "AR-255"],
    "Logs": ["logs", "ar-255-impl"],
    "Events": ["events"],
    "History": ["history"],
    "Health": ["health"],
    "Freeze": ["freeze", "AR-255"],
    "Thaw": ["thaw", "AR-255"],
    "Explain": ["explain", "AR-255"],
    "Retry": ["retry", "AR-255"],
    "Release": ["release", "AR-255"],
    "Pause": ["pause"],
    "Resume": ["resume"],
    "Shutdown": ["shutdown"],
}
ENDING = {"Kill", "Release"}
"""Answered when agents have ended, which takes as long as it takes."""


@pytest.fixture
async def daemon(tmp_path, nursery):
    scripted = ScriptedDaemon(tmp_path / "control.sock")
    await nursery.start(scripted.serve)
    return scripted


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path / "control.sock")


def refusal(name, reason):
    return encode_error(name, Reason(reason=reason))


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


# ----------------------------------------------------------------------------------- every verb


@pytest.mark.parametrize("verb", [verb for name, verb in VERBS.items() if name != "Submit"])
@pytest.mark.parametrize(
    ("name", "expected"), [("NoSuchTarget", 4), ("Refused", 1), ("BadUsage", 2)]
)
async def test_an_error_of_the_daemon_becomes_the_exit_status(daemon, ctl, verb, name, expected):
    for method in VERBS:
        daemon.when(method, refusal(f"{INTERFACE}.{name}", "the reason\x1b[31m given"))
    done = await ctl(*verb)
    assert done.returncode == expected == ERROR_EXITS[f"{INTERFACE}.{name}"]
    assert done.stderr == b"factoryctl: the reason\\x1b[31m given\n"
    assert done.stdout == b""


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
async def test_whoever_may_not_ask_is_told_with_status_6(daemon, ctl, verb):
    for method in VERBS:
        daemon.when(method, refusal(f"{SERVICE_INTERFACE}.PermissionDenied", "you may only read"))
    done = await ctl(*verb)
    assert (done.returncode, done.stdout) == (6, b"")
    assert b"you may only read" in done.stderr


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
async def test_without_a_daemon_every_verb_says_where_it_looked_and_what_to_do(ctl, verb):
    done = await ctl("--json", *verb)
    assert done.returncode == 3
    assert str(ctl.socket).encode() in done.stderr
    assert b"factoryd run" in done.stderr


async def test_a_socket_left_behind_is_no_daemon(ctl):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(ctl.socket))
    done = await ctl("status")
    assert done.returncode == 3
    assert b"no factoryd is running" in done.stderr


@pytest.mark.parametrize(
    "garbage", [b"hello\0", b"\xff\0", b'{"parameters":{"issues":7}}\0', b"\0"]
)
@pytest.mark.parametrize("verb", [["status"], ["kill", "A"], ["logs", "a"], ["events"]])
async def test_an_answer_that_cannot_be_read_is_said_to_be_one(daemon, ctl, verb, garbage):
    for method in VERBS:
        daemon.when(method, garbage)
    done = await ctl(*verb)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"factoryctl: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
async def test_a_connection_closed_halfway_is_told_without_a_traceback(daemon, ctl, verb):
    for method in VERBS:
        daemon.when(method, b'{"parameters":{', Act.CLOSE)
    done = await ctl(*verb)
    assert done.returncode == (3 if verb == ["health"] else 1)
    assert b"closed the connection before its answer was complete" in done.stderr
    assert b"Traceback" not in done.stderr


# -------------------------------------------------------------------------------------- submit


async def test_submitted_files_are_reported_one_by_one(daemon, ctl, tmp_path):
    daemon.when("Submit", encode_reply(SubmitReply(key="A-1", source="issues")))
    daemon.when("Submit", encode_reply(SubmitReply(key="A-2", source="issues")))
    files = [tmp_path / "one.md", tmp_path / "zwei \u00e9.md"]
    for file in files:
        file.write_text(f"---\nkey: {file.stem}\n---\n\u2713")
    done = await ctl("submit", *map(str, files), "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines(done) == [
        {"file": str(files[0]), "key": "A-1", "source": "issues"},
        {"file": str(files[1]), "key": "A-2", "source": "issues"},
    ]
    assert [daemon.parameters(n) for n in (0, 1)] == [
        {"text": file.read_text(), "name": file.name, "source": None} for file in files
    ]


async def test_an_issue_is_read_from_standard_input(daemon, ctl):
    daemon.when("Submit", encode_reply(SubmitReply(key="A-1", source="issues")))
    done = await ctl("submit", "-", stdin=b"---\nkey: A-1\n---\n")
    assert (done.returncode, done.stdout) == (0, b"A-1  issues  -\n")
    assert daemon.parameters()["text"] == "---\nkey: A-1\n---\n"


async def test_files_that_cannot_be_submitted_do_not_hold_up_the_others(daemon, ctl, tmp_path):
    daemon.when("Submit", refusal(f"{INTERFACE}.BadUsage", "line 1: `title` is missing"))
    daemon.when("Submit", encode_reply(SubmitReply(key="A-2", source="issues")))
    contents = {
        "binary.md": b"\xff\xfe\x00",
        "huge.md": b"x" * (MAX_REQUEST_BYTES + 1),
        "quoted.md": b'"' * (MAX_REQUEST_BYTES - 100),
        "refused.md": b"---\n",
        "good.md": b"good",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in ("missing.md", *contents)]
    done = await ctl("submit", str(tmp_path), *paths)
    assert done.returncode == 1
    assert done.stdout == f"A-2  issues  {tmp_path}/good.md\n".encode()
    said = done.stderr.decode().splitlines()
    expected = [
        "cannot be read (Is a directory)",
        "cannot be read (No such file or directory)",
        "is not UTF-8 text (byte 0)",
        "is too large",
        "is too large",
        "line 1: `title` is missing",
    ]
    for line, reason in zip(said, expected, strict=True):
        assert line.startswith(f"factoryctl: {tmp_path}")
        assert reason in line
    assert len(daemon.calls) == 2


# ---------------------------------------------------------------------------------------- kill


async def test_kill_tells_of_every_agent_as_it_is_emptied(daemon, ctl):
    first = KillReply(agents=(killed(),), ended=())
    last = KillReply(agents=(killed(agent="ar-255-review"),), ended=("AR-255",))
    daemon.when("Kill", encode_reply(first, continues=True), encode_reply(last))
    done = await ctl("kill", "AR-255", "--grace", "2m", "--reason", "enough", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines(done) == [
        {
            "agent": name,
            "run": "r1",
            "signals": ["SIGTERM", "SIGKILL"],
            "killed": 3,
            "signalled": [{"pid": 7, "signals": ["SIGTERM", "SIGKILL"]}],
            "skipped": [{"pid": 1, "reason": "protected"}],
            "survivors": 0,
            "emptied": True,
            "took_s": 0.05,
        }
        for name in ("ar-255-impl", "ar-255-review")
    ]
    assert daemon.calls[0].more
    assert daemon.parameters() == {
        "targets": ["AR-255"],
        "all": False,
        "grace_s": 120.0,
        "now": False,
        "reason": "enough",
        "wait": True,
    }
    text = await ctl("kill", "AR-255")
    assert [line.split()[0] for line in text.stdout.splitlines()] == [
        b"ar-255-impl",
        b"ar-255-review",
        b"AR-255",
    ]


@pytest.mark.parametrize("left", [{"survivors": 2, "emptied": False}, {"emptied": False}])
async def test_kill_ends_with_7_when_anything_is_left(daemon, ctl, left):
    first = KillReply(agents=(killed(**left),), ended=())
    last = KillReply(agents=(killed(agent="other"),), ended=("AR-255",))
    daemon.when("Kill", encode_reply(first, continues=True), encode_reply(last))
    done = await ctl("kill", "AR-255", "--json")
    assert done.returncode == 7
    assert [line["emptied"] for line in lines(done)] == [False, True]
    assert b"ar-255-impl (run r1) is not proven empty" in done.stderr


async def test_kill_without_waiting_says_that_it_has_only_begun(daemon, ctl):
    daemon.when("Kill", encode_reply(KillReply(agents=(), ended=())))
    done = await ctl("kill", "AR-255", "--now", "--no-wait")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"stopping has begun" in done.stderr
    assert (daemon.parameters()["now"], daemon.parameters()["wait"]) == (True, False)


async def test_kill_of_nothing_says_so(daemon, ctl):
    daemon.when("Kill", encode_reply(KillReply(agents=(), ended=())))
    done = await ctl("kill", "--all", "--yes")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"nothing to end" in done.stderr
    assert daemon.parameters()["all"] is True


async def test_killing_all_where_nobody_can_be_asked_needs_yes(daemon, ctl):
    done = await ctl("kill", "--all")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--all --yes" in done.stderr
    assert daemon.calls == []


@pytest.mark.parametrize(("typed", "expected"), [("y\n", 0), ("YES\n", 0), ("\n", 1), ("\x04", 1)])
async def test_killing_all_asks_on_a_terminal(daemon, ctl, typed, expected):
    daemon.when("Kill", encode_reply(KillReply(agents=(), ended=("A-1",))))
    code, shown = await ctl.on_terminal("kill", "--all", typed=typed)
    assert code == expected
    assert "End every issue with all its agents? [y/N]" in shown
    assert len(daemon.calls) == (1 if expected == 0 else 0)


@pytest.mark.parametrize(
    "arguments", [[], ["A", "--all"], ["A", "--now", "--grace", "1s"], ["A", "--grace", "soon"]]
)
async def test_a_kill_that_contradicts_itself_is_wrong_usage(daemon, ctl, arguments):
    done = await ctl("kill", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr
    assert daemon.calls == []


# ------------------------------------------------------------------------------------ shutdown


@pytest.mark.parametrize("verb", ["shutdown", "kill-loop"])
async def test_shutdown_returns_when_the_daemon_is_gone(daemon, ctl, verb):
    daemon.when("Shutdown", encode_reply(ShutdownReply(pid=12)), Act.CLOSE)
    done = await ctl(verb)
    answer = b"factoryd (pid 12) has stopped, nothing of it runs any more\n"
    assert (done.returncode, done.stdout) == (0, answer)
    assert b"factoryd (pid 12) is stopping" in done.stderr
    assert lines(await ctl(verb, "--json")) == [{"pid": 12, "stopped": True}]


async def test_a_daemon_that_ends_without_taking_its_heartbeat_away_is_no_proof(
    daemon, ctl, tmp_path
):
    daemon.when("Shutdown", encode_reply(ShutdownReply(pid=12)), Act.CLOSE)
    (tmp_path / "heartbeat").write_bytes(msgspec.json.encode(beat()))
    done = await ctl("shutdown", "--json")
    assert done.returncode == 7
    assert lines(done) == [{"pid": 12, "stopped": False}]
    assert b"ended without proving that nothing is left" in done.stderr


# ------------------------------------------------------------------------------------- silence


@pytest.fixture
async def daemons(tmp_path, nursery):
    """Return a function that starts a silent daemon with the heartbeat given, and its ctl."""

    async def start(name, heartbeat):
        directory = tmp_path / name
        directory.mkdir()
        if heartbeat is not None:
            (directory / "heartbeat").write_bytes(msgspec.json.encode(heartbeat))
        scripted = ScriptedDaemon(directory / "control.sock")
        for method in (*VERBS, "Watch"):
            scripted.when(method, Act.HANG)
        await nursery.start(scripted.serve)
        return scripted, Ctl(scripted.socket)

    return start


@pytest.mark.slow
async def test_a_daemon_that_keeps_silent_is_given_up_and_one_that_works_is_waited_for(daemons):
    _, mute = await daemons("mute", None)
    stopping, hung = await daemons("hung", beat(stale_after_s=0.0))
    working, busy = await daemons("busy", beat())
    finish = trio.Event()
    working.script("Kill", finish, encode_reply(KillReply(agents=(killed(),), ended=("A",))))
    stopping.script("Shutdown", encode_reply(ShutdownReply(pid=12)), Act.HANG)
    given_up = {}
    waited = bytearray()

    async def ask(ctl, *verb):
        given_up[verb] = await ctl(*verb)

    async def wait_for_the_busy_one():
        process = await trio.lowlevel.open_process(
            busy.command("kill", "A"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environ(busy.socket.parent),
        )
        assert process.stderr is not None
        async with process.stderr:
            async for said in process.stderr:
                waited.extend(said)
                if b"still waiting for agents to end (10 s)" in waited:
                    finish.set()
        assert await process.wait() == 0

    began = time.monotonic()
    async with trio.open_nursery() as callers:
        callers.start_soon(wait_for_the_busy_one)
        async with trio.open_nursery() as impatient:
            for verb in (*(v for m, v in VERBS.items() if m not in ENDING), ["status", "--watch"]):
                impatient.start_soon(ask, mute, *verb)
            impatient.start_soon(ask, mute, "logs", "a", "-f")
            impatient.start_soon(ask, hung, "kill", "A")
            impatient.start_soon(ask, hung, "events", "-f")
            impatient.start_soon(ask, hung, "kill-loop")
        assert time.monotonic() - began >= 10
    assert len(given_up) == len(VERBS) - len(ENDING) + 5
    for done in given_up.values():
        assert done.returncode == 5
        assert b"does not answer" in done.stderr
        assert b"Traceback" not in done.stderr
    assert finish.is_set()
