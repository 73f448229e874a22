"""The control socket of a real daemon: every method, every shape of a call, every bad one."""

import json
import os
import re
import resource
import select
import socket
import tempfile
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing
from typing_extensions import override

from factoryd.adapters.listening import bind_control_socket
from factoryd.core.config import AccessConfig
from factoryd.flow.control import Bounds, ControlServer
from factoryd.flow.pulse import Pulse
from factoryd.wire.answers import LineView
from factoryd.wire.framing import INTERFACE, MAX_REQUEST_BYTES
from tests.fakes.trees import FakeTrees
from tests.system.daemons import WITHIN_S, CallFailed, a_daemon, ask_as, connect, play

pytestmark = pytest.mark.system

SERVICE = "org.varlink.service"


async def refusal(call):
    """Return the name and the parameters of the error that a call gets."""
    with pytest.raises(CallFailed) as caught:
        await call
    return caught.value.name, caught.value.parameters


def issue_text(key, script="exit 0"):
    return f"---\nkey: {key}\ntitle: Sent\n---\n{script}\n"


# ----------------------------------------------------------------------------------- status, watch


async def test_status_shows_the_daemon_and_what_it_works_on():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play())
        await daemon.wait_issue(
            "A-1",
            "running",
            when=lambda one: any((a["processes"] or 0) >= 2 for a in one["agents"]),
        )
        status = await daemon.status()
    assert status["daemon"]["pid"] == daemon.pid
    assert status["daemon"]["state"] == "running"
    assert status["daemon"]["free_slots"] == status["daemon"]["slots"] - 1
    assert [source["state"] for source in status["sources"]] == ["ok"]
    (issue,) = status["issues"]
    (agent,) = issue["agents"]
    assert (issue["key"], issue["state"], agent["name"]) == ("A-1", "running", "a-1-w")
    assert agent["processes"] >= 2


async def test_status_of_targets_shows_those_and_refuses_what_nobody_knows():
    async with a_daemon() as daemon:
        for key in ("A-1", "A-2", "A-3"):
            daemon.place.put(key, play())
            await daemon.wait_running(key)
        status = await daemon.status("a-1", "A-2-w")
        assert [issue["key"] for issue in status["issues"]] == ["A-1", "A-2"]
        name, parameters = await refusal(daemon.call("Status", targets=["A-1", "A-9"]))
    assert name == "NoSuchTarget"
    assert parameters == {"reason": "A-9: no such issue or agent"}


async def test_watch_shows_each_change_and_nothing_while_nothing_changes():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        pictures = client.stream_of("Watch")
        assert (await anext(pictures))["issues"] == []
        with trio.move_on_after(1.5) as silence:
            await anext(pictures)
        assert silence.cancelled_caught
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        pictures = client.stream_of("Watch")
        assert (await anext(pictures))["issues"] == []
        daemon.place.put("A-1", "exit 0")
        states = []
        while "done" not in states:
            states += [issue["state"] for issue in (await anext(pictures))["issues"]]


async def test_watch_shows_a_source_problem_which_is_no_fact():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        pictures = client.stream_of("Watch")
        assert (await anext(pictures))["sources"][0]["problems"] == []
        (daemon.place.ready / "bad.md").write_text("no front matter")
        problems: list[dict[str, str]] = []
        while not problems:
            problems = (await anext(pictures))["sources"][0]["problems"]
    assert "bad.md" in problems[0]["where"]


STREAMS: dict[str, dict[str, object]] = {
    "Watch": {},
    "Events": {"follow": True},
    "Logs": {"target": "A-1", "follow": True},
}


async def test_what_streams_for_ever_needs_more():
    async with a_daemon() as daemon:
        for method, parameters in STREAMS.items():
            name, _ = await refusal(daemon.call(method, **parameters))
            assert name == "ExpectedMore"


async def test_a_caller_that_leaves_in_the_middle_of_a_stream_costs_nothing():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play())
        run = (await daemon.wait_running("A-1"))["run"]
        # Once its output is followed, nothing more is opened for it.
        await daemon.place.wait_for((daemon.place.state / "runs" / "A-1" / run / "followed").exists)
        process = psutil.Process(daemon.pid)
        before = process.num_fds()
        for _ in range(20):
            for method, parameters in STREAMS.items():
                async with connect(daemon.place.socket) as client:
                    await anext(client.stream_of(method, **parameters))
        await daemon.place.wait_for(lambda: process.num_fds() <= before)
        assert (await daemon.call("Health"))["state"] == "ok"


# ---------------------------------------------------------------------------------- events, health


async def test_events_are_the_facts_in_order():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", "exit 0")
        daemon.place.put("A-2", "exit 0")
        await daemon.wait_issue("A-1", "done")
        await daemon.wait_issue("A-2", "done")
        facts = (await daemon.call("Events"))["facts"]
        assert [fact["seq"] for fact in facts] == sorted(fact["seq"] for fact in facts)
        kinds = [fact["kind"] for fact in facts if fact["issue"] == "A-1"]
        assert kinds[0] == "issue-claimed"
        assert kinds.index("run-starting") < kinds.index("run-emptied") < kinds.index("issue-done")
        assert facts[0]["body"]["pid"] == daemon.pid
        only = (await daemon.call("Events", issue="a-1"))["facts"]
        assert [fact["kind"] for fact in only][: len(kinds)] == kinds
        two = (await daemon.call("Events", since=facts[0]["seq"], limit=2))["facts"]
        assert two == facts[1:3]
        assert (await daemon.call("Events", since=1 << 80))["facts"] == []
        assert (await daemon.call("Events", since=-1, limit=-1))["facts"] == facts[:1]


async def test_events_are_followed_as_they_are_committed():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        kinds = []
        replies = client.stream_of("Events", follow=True, issue="A-2")
        daemon.place.put("A-1", "exit 0")
        daemon.place.put("A-2", "exit 0")
        while "issue-done" not in kinds:
            facts = (await anext(replies))["facts"]
            assert {fact["issue"] for fact in facts} == {"A-2"}
            kinds += [fact["kind"] for fact in facts]
    assert kinds[0] == "issue-claimed"


async def test_health_names_every_part():
    async with a_daemon() as daemon:
        health = await daemon.call("Health")
    assert (health["state"], health["pid"], health["degraded"]) == ("ok", daemon.pid, [])
    names = {pulse["name"] for pulse in health["pulses"]}
    assert {"scheduler", "control", "reaper", "source issues"} <= names
    assert not any(pulse["late"] for pulse in health["pulses"])


# -------------------------------------------------------------------------------------------- logs


async def test_logs_are_the_last_lines_of_an_agent():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", "seq 1 50; printf 'no end'")
        issue = await daemon.wait_issue("A-1", "done")
        run = issue["agents"][0]["run"]
        logs = await daemon.call("Logs", target="A-1", lines=3)
        assert [line["text"] for line in logs["lines"]] == ["49", "50", "no end"]
        assert (logs["agent"], logs["run"]) == ("a-1-w", run)
        assert len((await daemon.call("Logs", target="A-1-w"))["lines"]) == 51
        assert (await daemon.call("Logs", target="A-1", lines=-5))["lines"] == []
        again = await daemon.call("Logs", target="A-1", run=run, lines=3)
        assert again["lines"] == logs["lines"]
        for target, run in (("A-9", None), ("A-1", "nope"), ("A-1", "../" * 9), ("A-1", "x" * 999)):
            name, _ = await refusal(daemon.call("Logs", target=target, run=run))
            assert name == "NoSuchTarget"


async def test_logs_of_an_issue_with_several_agents_name_them():
    async with a_daemon(agents='[agents.other]\nkind = "command"\ncommand = ["true"]') as daemon:
        text = daemon.place.config.read_text()
        daemon.place.config.write_text(text.replace('[["worker"]]', '[["worker", "other"]]'))
        await daemon.stop()
        async with daemon.place.daemon() as second:
            second.place.put("A-1", "exit 0")
            await second.wait_issue("A-1", "done")
            name, parameters = await refusal(second.call("Logs", target="A-1"))
    assert name == "BadUsage"
    assert set(re.findall("a-1-[a-z]+", parameters["reason"])) == {"a-1-w", "a-1-other"}


async def test_logs_are_followed_to_the_agents_end_unfinished_line_included():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", "echo up; until [ -e go ]; do sleep 0.01; done; seq 3; printf end")
        await daemon.wait_running("A-1")
        async with connect(daemon.place.socket) as client:
            replies = client.stream_of("Logs", target="A-1", follow=True)
            lines = [line["text"] for line in (await anext(replies))["lines"]]
            assert lines == ["up"]
            (daemon.place.root / "work" / "go").touch()
            async for reply in replies:
                lines += [line["text"] for line in reply["lines"]]
    assert lines == ["up", "1", "2", "3", "end"]


async def test_following_without_looking_back_begins_at_the_end():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", "seq 9; echo up; until [ -e go ]; do sleep 0.01; done; echo new")
        await daemon.wait_running("A-1")
        async with connect(daemon.place.socket) as client:
            replies = client.stream_of("Logs", target="A-1", follow=True, lines=0)
            assert (await anext(replies))["lines"] == []
            (daemon.place.root / "work" / "go").touch()
            lines = [line["text"] async for reply in replies for line in reply["lines"]]
    assert lines == ["new"]


async def test_following_a_line_that_does_not_end_keeps_nobody_busy():
    async with a_daemon(output="max_line_bytes = 4096") as daemon:
        daemon.place.put("A-1", "echo up; exec $PYTHON $AGENT print:300000 sleep")
        await daemon.wait_running("A-1")
        async with connect(daemon.place.socket) as client:
            replies = client.stream_of("Logs", target="A-1", follow=True, lines=0)
            await anext(replies)
            process = psutil.Process(daemon.pid)
            before = sum(process.cpu_times()[:2])
            with trio.move_on_after(1) as silence:
                await anext(replies)
            assert silence.cancelled_caught
            assert sum(process.cpu_times()[:2]) - before < 0.3


# -------------------------------------------------------------------------------------------- kill


async def test_kill_reports_each_run_as_it_is_emptied():
    async with a_daemon(stop='grace = "30s"') as daemon:
        daemon.place.put("A-1", play("child:2"))
        daemon.place.put("A-2", play("ignore:TERM"))
        for key in ("A-1", "A-2"):
            await daemon.wait_running(key)
        async with connect(daemon.place.socket) as client:
            stream = client.stream_of("Kill", targets=["a-1", "a-2-w", "A-2"])
            replies = [await anext(stream)]
            while "A-1" not in replies[-1]["ended"]:
                replies.append(await anext(stream))
            await daemon.call("Kill", targets=["A-2"], now=True)
            replies += [reply async for reply in stream]
    assert len(replies) > 1
    reports = {one["agent"]: one for reply in replies for one in reply["agents"]}
    assert sorted(key for reply in replies for key in reply["ended"]) == ["A-1", "A-2"]
    assert reports["a-1-w"]["signals"] == ["SIGTERM"]
    assert reports["a-1-w"]["killed"] >= 4
    assert reports["a-2-w"]["signals"] == ["SIGTERM", "SIGKILL"]
    assert all(one["emptied"] and one["survivors"] == 0 for one in reports.values())


async def test_kill_without_more_answers_once_when_all_is_over():
    async with a_daemon() as daemon:
        for key in ("A-1", "A-2"):
            daemon.place.put(key, play())
            await daemon.wait_running(key)
        reply = await daemon.call("Kill", all=True, reason="enough\nof it")
        assert daemon.place.survivors() == []
        assert sorted(reply["ended"]) == ["A-1", "A-2"]
        assert {one["agent"] for one in reply["agents"]} == {"a-1-w", "a-2-w"}
        issue = await daemon.issue("A-1")
    assert issue is not None
    assert (issue["state"], issue["reason"]) == ("cancelled", "enough of it")


async def test_kill_without_waiting_answers_once_stopping_has_begun():
    async with a_daemon(stop='grace = "30s"') as daemon:
        daemon.place.put("A-1", play("ignore:TERM"))
        await daemon.wait_running("A-1")
        with trio.fail_after(WITHIN_S):
            reply = await daemon.call("Kill", targets=["A-1"], wait=False)
            assert reply == {"agents": [], "ended": []}
            await daemon.wait_issue("A-1", "stopping")
            assert len(daemon.place.survivors()) > 0
            await daemon.call("Kill", targets=["A-1"], now=True)
        assert daemon.place.survivors() == []


async def test_kill_with_a_grace_of_its_own_waits_no_longer():
    async with a_daemon(stop='grace = "30s"') as daemon:
        daemon.place.put("A-1", play("ignore:TERM"))
        await daemon.wait_running("A-1")
        (report,) = (await daemon.call("Kill", targets=["A-1"], grace_s=0.2))["agents"]
    assert 0.2 <= report["took_s"] < WITHIN_S


async def test_kill_refuses_what_cannot_be_and_touches_nothing():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play())
        daemon.place.put("A-2", "exit 0")
        await daemon.wait_running("A-1")
        await daemon.wait_fact("A-2", "outcome-written")
        for parameters, expected in (
            ({"targets": ["A-1", "A-9"]}, "NoSuchTarget"),
            ({"targets": ["A-1", "A-2"]}, "Refused"),
            ({"targets": ["a-2-w"]}, "Refused"),
            ({}, "BadUsage"),
            ({"targets": ["A-1"], "grace_s": -1}, "BadUsage"),
        ):
            name, _ = await refusal(daemon.call("Kill", **parameters))
            assert name == expected, parameters
        issue = await daemon.issue("A-1")
        assert issue is not None
        assert issue["state"] == "running"


async def test_kill_ends_an_issue_that_waits_for_a_slot():
    async with a_daemon(factory="slots = 1") as daemon:
        daemon.place.put("A-1", play())
        await daemon.wait_running("A-1")
        daemon.place.put("A-2", "touch started")
        await daemon.wait_issue("A-2", "ready")
        reply = await daemon.call("Kill", targets=["A-2", "a-2"])
        assert reply == {"agents": [], "ended": ["A-2"]}
        await daemon.wait_issue("A-2", "cancelled")
        assert not (daemon.place.root / "work" / "started").exists()


async def test_kill_of_all_where_nothing_runs_is_done_at_once():
    async with a_daemon() as daemon:
        assert await daemon.call("Kill", all=True) == {"agents": [], "ended": []}


# ------------------------------------------------------------------------------- submit, shutdown


async def test_a_submitted_issue_is_worked_on():
    async with a_daemon() as daemon:
        reply = await daemon.call("Submit", text=issue_text("A-1"), name="../../etc/a.md")
        assert reply == {"key": "A-1", "source": "issues"}
        await daemon.wait_issue("A-1", "done")
        await daemon.place.wait_for((daemon.place.root / "issues" / "done" / "A-1.md").exists)


async def test_what_cannot_be_submitted_is_refused_with_a_reason():
    async with a_daemon() as daemon:
        for parameters, expected in (
            ({"text": "no front matter"}, "BadUsage"),
            ({"text": issue_text("../../A-1")}, "BadUsage"),
            ({"text": issue_text("A-1"), "source": "elsewhere"}, "NoSuchTarget"),
        ):
            name, error = await refusal(daemon.call("Submit", **parameters))
            assert name == expected, parameters
            assert error["reason"]
        assert (await daemon.status())["issues"] == []


async def test_shutdown_closes_the_connection_when_all_is_gone():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play("setsid", "double-fork", "ignore:TERM"))
        await daemon.wait_running("A-1")
        async with connect(daemon.place.socket) as client:
            assert await client.call("Shutdown", reason="test") == {"pid": daemon.pid}
            await client.wait_closed()
        assert daemon.place.survivors() == []
        assert await daemon.wait() == 0
        assert "stopping: test" in daemon.place.log


@pytest.mark.parametrize("flags", [{}, {"oneway": True}])
async def test_a_shutdown_counts_though_nobody_waits_for_the_answer(flags):
    async with a_daemon() as daemon:
        async with connect(daemon.place.socket) as client:
            await client.send("Shutdown", {}, **flags)
        assert await daemon.wait() == 0


# ------------------------------------------------------------------------------- shapes of a call


async def test_calls_sent_together_are_answered_in_order():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        calls = [{"method": f"{INTERFACE}.N{number}"} for number in range(1000)]
        await client.stream.send_all(b"".join(json.dumps(call).encode() + b"\0" for call in calls))
        for call in calls:
            assert (await client.receive())["parameters"] == call


async def test_a_call_may_come_in_pieces():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        for byte in b'{"method":"io.factoryd.Control.Health"}\0':
            await client.stream.send_all(bytes([byte]))
        assert (await client.answer())["state"] == "ok"


async def test_a_oneway_call_gets_no_answer_not_even_an_error():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        for method in ("Health", "Status", "Nope", "Watch", "other.Thing", "Kill"):
            await client.send(method, {}, oneway=True)
        await client.send("Watch", {}, oneway=True, more=True)
        assert (await client.call("Health"))["pid"] == daemon.pid


async def test_a_caller_that_ends_only_its_own_side_gets_its_answers():
    async with a_daemon() as daemon:
        for flags in ({}, {"more": True}):
            async with connect(daemon.place.socket) as client:
                await client.send("Events", {}, **flags)
                client.stream.socket.shutdown(socket.SHUT_WR)
                assert (await client.answer())["facts"]
        async with connect(daemon.place.socket) as client:
            await client.send("Events", {"follow": True}, more=True)
            client.stream.socket.shutdown(socket.SHUT_WR)
            await client.receive()
            daemon.place.put("A-1", "exit 0")
            assert (await client.receive())["parameters"]["facts"]


async def test_null_stands_for_a_parameters_default():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        assert (await client.call("Events", since=None, limit=None, follow=None))["facts"]
        await client.send("Status", None)
        assert (await client.answer())["issues"] == []
        await client.stream.send_all(b'{"method":"io.factoryd.Control.Status","parameters":null}\0')
        assert (await client.answer())["issues"] == []


async def test_unknown_fields_are_no_error():
    async with a_daemon() as daemon:
        assert (await daemon.call("Status", newer=[1, {"x": None}]))["issues"] == []


WRONG_PARAMETERS = [
    ("Logs", {"target": "A-1", "lines": "many"}, "lines"),
    ("Logs", {}, "target"),
    ("Logs", {"target": None}, "target"),
    ("Status", {"targets": ["A-1", 5]}, "targets"),
    ("Status", [], "parameters"),
    ("Kill", {"grace_s": "long", "targets": ["x"]}, "grace_s"),
    ("Kill", {"reason": {"a": 1}}, "reason"),
    ("Submit", {"name": "x"}, "text"),
    (f"{SERVICE}.GetInterfaceDescription", {"interface": 5}, "interface"),
]


async def test_a_parameter_of_the_wrong_type_is_named_and_the_connection_goes_on():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        for method, parameters, culprit in WRONG_PARAMETERS:
            for more in (False, True):
                await client.send(method, parameters, more=more)
                reply = await client.receive()
                assert reply["error"] == f"{SERVICE}.InvalidParameter"
                assert reply["parameters"] == {"parameter": culprit}
        assert (await client.call("Health"))["state"] == "ok"


UNKNOWN = [
    ("Nope", "MethodNotFound", {"method": f"{INTERFACE}.Nope"}),
    (f"{SERVICE}.Nope", "MethodNotFound", {"method": f"{SERVICE}.Nope"}),
    ("org.example.Ping", "InterfaceNotFound", {"interface": "org.example"}),
    (".", "InterfaceNotFound", {"interface": ""}),
]


async def test_what_does_not_exist_is_named_and_the_connection_goes_on():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        for method, error, parameters in UNKNOWN:
            await client.send(method)
            reply = await client.receive()
            assert reply["error"] == f"{SERVICE}.{error}"
            assert reply["parameters"] == parameters
        assert (await client.call("Health"))["state"] == "ok"


NO_CALLS = {
    "text": b"hello",
    "nothing": b"",
    "half JSON": b'{"method":',
    "a list": b"[]",
    "null": b"null",
    "no method": b'{"parameters":{}}',
    "a number as method": b'{"method":5}',
    "more as text": b'{"method":"a.B","more":"yes"}',
    "bytes that are no UTF-8": b'{"method":"\xff\xfe"}',
    "half of a character": b'{"method":"\xc3"}',
    "a lone surrogate": b'{"method":"\\ud800"}',
    "deep lists": b'{"method":"a.B","parameters":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "deep objects": b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


async def test_what_is_no_call_costs_its_sender_the_connection_and_nobody_else():
    async with a_daemon() as daemon, connect(daemon.place.socket) as other:
        for what, message in NO_CALLS.items():
            async with connect(daemon.place.socket) as client:
                await client.stream.send_all(message + b"\0")
                reply = await client.receive()
                assert reply["error"] == f"{SERVICE}.InvalidParameter", what
                with pytest.raises((EOFError, trio.BrokenResourceError)):
                    await client.receive()
        assert (await other.call("Health"))["state"] == "ok"
        assert "Traceback" not in daemon.place.log


async def test_bytes_that_are_no_text_in_a_parameter_are_an_error_for_that_call():
    async with a_daemon() as daemon, connect(daemon.place.socket) as client:
        await client.stream.send_all(
            b'{"method":"io.factoryd.Control.Kill","parameters":{"targets":["\xff"]}}\0'
        )
        assert (await client.receive())["error"] == f"{SERVICE}.InvalidParameter"
        assert (await client.call("Health"))["state"] == "ok"


# ------------------------------------------------------------------------------------------ bounds


async def test_a_request_of_100_mb_is_cut_off_and_costs_no_memory():
    async with a_daemon() as daemon, connect(daemon.place.socket) as other:
        process = psutil.Process(daemon.pid)
        await other.call("Status")
        before = process.memory_info().rss
        async with connect(daemon.place.socket) as client:
            with pytest.raises(trio.BrokenResourceError):
                await client.stream.send_all(b"x" * 100_000_000)
            reply = await client.receive()
        assert str(MAX_REQUEST_BYTES) in reply["parameters"]["parameter"]
        assert process.memory_info().rss - before < 4 * MAX_REQUEST_BYTES
        assert (await other.call("Health"))["state"] == "ok"


async def test_500_idle_connections_keep_nobody_from_being_answered():
    async with a_daemon() as daemon, connect(daemon.place.socket) as regular:
        await regular.call("Health")
        idle = []
        try:
            for _ in range(500):
                one = socket.socket(socket.AF_UNIX)
                idle.append(one)
                one.connect(str(daemon.place.socket))
            with trio.fail_after(WITHIN_S):
                assert (await daemon.call("Health"))["state"] == "ok"
            await daemon.place.wait_for(lambda: psutil.Process(daemon.pid).num_fds() < 300)
        finally:
            for one in idle:
                one.close()


async def test_2000_connections_leave_no_descriptor_behind():
    async with a_daemon() as daemon:
        process = psutil.Process(daemon.pid)
        await daemon.call("Health")
        before = process.num_fds()
        for number in range(2000):
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(str(daemon.place.socket))
                if number % 3 == 0:
                    one.sendall(b'{"method":"io.factoryd.Control.Health"}\0'[: number % 50])
            if number % 50 == 0:
                await daemon.call("Health")
        await daemon.place.wait_for(lambda: process.num_fds() <= before)


async def test_a_caller_that_never_reads_keeps_nobody_from_being_answered():
    async with a_daemon() as daemon:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(daemon.place.socket))
            one.setblocking(False)
            call = b'{"method":"org.varlink.service.GetInterfaceDescription","parameters":'
            call += b'{"interface":"io.factoryd.Control"}}\0'
            while True:  # until neither side's buffers take more
                with suppress(BlockingIOError):
                    one.send(call * 100)
                    continue
                await trio.sleep(0.1)
                with suppress(BlockingIOError):
                    one.send(call)
                    continue
                break
            with trio.fail_after(WITHIN_S):
                assert (await daemon.call("Health"))["state"] == "ok"
            assert psutil.Process(daemon.pid).memory_info().rss < 100_000_000


# ------------------------------------------------------- bounds, shortened, in this very process


class Accounts:
    """A machine on which nobody has a name."""

    def __init__(self, own_uid: int = 0) -> None:
        self.own_uid = own_uid

    def look_up(self, uid: int) -> tuple[str | None, frozenset[str]]:
        return None, frozenset()


class Echo:
    """Methods that answer with as many bytes as asked for, fail, or hang."""

    async def answer(self, interface, name, call, say):
        if name == "Fail":
            raise ZeroDivisionError("a bug")
        parameters = json.loads(bytes(call.parameters))
        if name == "Hang" or "hang" in parameters:
            await trio.sleep_forever()
        size = parameters.get("size", 1)
        await say(LineView(offset=0, text="x" * size))


@pytest.fixture
def path():
    with tempfile.TemporaryDirectory(prefix="fd-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory, "s")


@asynccontextmanager
async def a_server(path, *, accounts=None, trees=None, **bounds):
    """Run a control server with other bounds; yields its pulse."""
    pulse = Pulse("control", 30)
    server = ControlServer(
        methods=Echo(),
        access=AccessConfig,
        accounts=accounts or Accounts(),
        trees=trees or FakeTrees(),
        pulse=pulse,
        bounds=Bounds(**bounds),
    )
    with bind_control_socket(path).socket as listening:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, trio.SocketListener(listening))
            yield pulse
            nursery.cancel_scope.cancel()


async def test_half_a_request_is_closed_with_an_error_after_its_time(path):
    async with a_server(path, request_time_s=0.1), connect(path) as idle:
        async with connect(path) as client:
            await client.stream.send_all(b'{"method":"io.fact')
            reply = await client.receive()
            assert reply["error"] == f"{SERVICE}.InvalidParameter"
            assert "not complete after 0.1 s" in reply["parameters"]["parameter"]
            with pytest.raises(EOFError):
                await client.receive()
        async with connect(path) as client:
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                while True:  # a byte now and then is no whole request either
                    await client.stream.send_all(b"x")
                    await trio.sleep(0.01)
        assert await idle.call("Echo")  # to say nothing at all is not half a request


async def test_a_request_may_be_as_large_as_the_bound_and_no_larger(path):
    call = b'{"method":"io.factoryd.Control.Status"}'
    async with a_server(path, request_bytes=100):
        async with connect(path) as client:
            await client.stream.send_all(call.ljust(100) + b"\0" + call.ljust(100) + b"\0")
            await client.answer()
            await client.answer()
            await client.stream.send_all(call.ljust(101) + b"\0")
            reply = await client.receive()
            assert reply["parameters"] == {"parameter": "a request of over 100 bytes"}
        async with connect(path) as client:
            await client.send("Hang", more=True)
            await client.stream.send_all(b"y" * 1000)
            await client.wait_closed()


async def test_a_reply_that_nobody_takes_ends_its_connection_and_makes_nothing_late(path):
    async with a_server(path, send_time_s=0.3) as pulse, connect(path) as client:
        await client.send("Status", {"size": 10_000_000})
        await trio.lowlevel.wait_readable(client.stream.socket)
        await trio.sleep(0.2)  # it is sending, and goes on to do so
        assert pulse.read().silent_s < 0.1
        await wait_hung_up(client)
        await client.wait_closed()


async def wait_hung_up(client):
    """Return once the other end is closed; nothing of what it has sent is taken."""
    with trio.fail_after(WITHIN_S), select.epoll() as poll:
        poll.register(client.stream.socket.fileno(), 0)  # no event but the hang-up
        await trio.lowlevel.wait_readable(poll.fileno())


async def test_a_method_that_takes_long_counts_as_silence_of_the_control_part(path):
    async with a_server(path) as pulse, connect(path) as client:
        await client.send("Health", {"hang": True})
        with trio.fail_after(WITHIN_S):
            while pulse.read().silent_s < 0.05:  # noqa: ASYNC110  a pulse tells nobody
                await trio.sleep(0.01)
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await client.receive()
    async with a_server(path) as pulse, connect(path) as client:
        await client.send("Kill", {"hang": True})
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await client.receive()
        assert pulse.read().silent_s < 0.05  # a stream may take its time


async def test_the_connection_that_is_idle_longest_makes_room(path):
    async with a_server(path, connections=3), AsyncExitStack() as stack:
        old = await stack.enter_async_context(connect(path))
        busy = await stack.enter_async_context(connect(path))
        new = await stack.enter_async_context(connect(path))
        for client in (busy, new, old):
            await client.call("Status")
        await busy.send("Hang")
        await new.call("Status")
        await old.call("Status")
        newest = await stack.enter_async_context(connect(path))
        await newest.call("Status")
        await new.wait_closed()
        await old.call("Status")


async def test_when_all_are_busy_twice_as_many_connections_are_the_end(path):
    async with a_server(path, connections=2), AsyncExitStack() as stack:
        for _ in range(4):
            client = await stack.enter_async_context(connect(path))
            await client.send("Hang")
        await trio.testing.wait_all_tasks_blocked()
        one_more = await stack.enter_async_context(connect(path))
        await one_more.wait_closed()


async def test_one_reader_cannot_take_all_connections(path):
    class EverybodyIsAnAgent(FakeTrees):
        @override
        def owns(self, pid):
            return True

    async with (
        a_server(path, trees=EverybodyIsAnAgent(), connections_per_user=2),
        AsyncExitStack() as stack,
    ):
        idle = await stack.enter_async_context(connect(path))
        busy = await stack.enter_async_context(connect(path))
        await idle.call("Status")
        await busy.call("Status")
        await busy.send("Watch", more=True)
        await trio.testing.wait_all_tasks_blocked()
        third = await stack.enter_async_context(connect(path))
        await third.call("Status")
        await idle.wait_closed()


async def test_a_bug_in_a_method_is_answered_and_ends_nothing(path, caplog):
    async with a_server(path), connect(path) as client:
        for more in (False, True):
            await client.send("Fail", more=more)
            reply = await client.receive()
            assert reply["error"] == f"{INTERFACE}.Refused"
            assert "an error inside factoryd" in reply["parameters"]["reason"]
        await client.call("Status")
    assert "ZeroDivisionError" in caplog.text


async def test_a_name_service_that_hangs_costs_only_those_who_need_it(path, caplog):
    release = threading.Event()

    class Hanging(Accounts):
        @override
        def look_up(self, uid):
            release.wait(10)
            return "late", frozenset()

    async with a_server(path, accounts=Hanging(), look_up_time_s=0.2), connect(path) as client:
        with trio.fail_after(5):  # the name service takes twice as long
            await client.call("Status")
        reply = await ask_as("nobody", path, "Status")
        release.set()
    assert reply["error"] == f"{SERVICE}.PermissionDenied"
    assert "does not say who user 65534 is" in caplog.text


async def test_too_many_open_files_end_nothing(path, caplog):
    async with a_server(path):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket(socket.AF_UNIX)
        try:
            highest = max(int(name) for name in os.listdir("/proc/self/fd"))
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            fill = [os.dup(0) for _ in range(highest + 1 - len(os.listdir("/proc/self/fd")) + 1)]
            waiting.connect(str(path))
            with trio.fail_after(5):
                while "could not be accepted" not in caplog.text:  # noqa: ASYNC110  the log tells nobody
                    await trio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in fill:
                os.close(descriptor)
            waiting.close()
        async with connect(path) as client:
            await client.call("Status")
