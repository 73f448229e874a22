"""Who may do what over the control socket of a real daemon: the kernel says who asks."""

import json
import socket
import sys
import tempfile
from pathlib import Path

import pytest
import trio

from factoryd.adapters.accounts import SystemAccounts
from factoryd.adapters.listening import bind_control_socket
from factoryd.core.config import AccessConfig
from factoryd.flow.control import ControlServer
from factoryd.flow.pulse import Pulse
from tests.fakes.trees import FakeTrees
from tests.system.daemons import ASKER, a_daemon, ask_as, connect, is_started, play

pytestmark = pytest.mark.system

DENIED = "org.varlink.service.PermissionDenied"
READS: tuple[tuple[str, dict[str, object]], ...] = (
    ("Status", {}),
    ("Events", {}),
    ("History", {}),
    ("History", {"target": "A-1"}),
    ("Health", {}),
    ("Logs", {"target": "A-1"}),
)
ACTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("Kill", {"targets": ["A-1"]}),
    ("Kill", {"all": True, "now": True}),
    ("Submit", {"text": "---\nkey: A-2\ntitle: Bad\n---\nexit 1\n"}),
    ("Shutdown", {}),
)


@pytest.mark.parametrize(
    ("access", "user"),
    [
        ('operators = ["games"]', "games"),
        ('operators = ["@games"]', "games"),
        ('operators = ["root", "@nogroup"]\nreaders = ["nobody"]', "nobody"),
    ],
)
async def test_an_operator_may_do_everything(access, user):
    async with a_daemon(access=access) as daemon:
        daemon.place.put("A-1", play())
        await daemon.wait_running("A-1")
        socket_path = daemon.place.socket
        for method, parameters in READS:
            assert "error" not in await ask_as(user, socket_path, method, **parameters)
        reply = await ask_as(user, socket_path, "Kill", targets=["A-1"])
        assert reply["parameters"]["ended"] == ["A-1"]
        reply = await ask_as(user, socket_path, "Shutdown")
        assert reply["parameters"] == {"pid": daemon.pid}
        assert await daemon.wait() == 0


@pytest.mark.parametrize("access", ['readers = ["daemon"]', 'readers = ["@daemon"]'])
async def test_a_reader_may_look_and_nothing_else(access):
    async with a_daemon(access=access) as daemon:
        daemon.place.put("A-1", play())
        await daemon.wait_running("A-1")
        for method, parameters in READS:
            reply = await ask_as("daemon", daemon.place.socket, method, **parameters)
            assert "error" not in reply
        for method, parameters in ACTS:
            reply = await ask_as("daemon", daemon.place.socket, method, **parameters)
            assert reply["error"] == DENIED
            assert reply["parameters"]["reason"].startswith(f"{method} needs the rights")
        status = await daemon.status()
        assert [issue["state"] for issue in status["issues"]] == ["running"]


async def test_anyone_else_learns_what_this_is_and_nothing_more():
    # `games` is a user, not the group of that name: its members have no rights here.
    async with a_daemon(access='operators = ["@games"]\nreaders = ["daemon"]') as daemon:
        for method, parameters in (*READS, *ACTS, ("Nope", {})):
            reply = await ask_as("nobody", daemon.place.socket, method, **parameters)
            assert reply["error"] == DENIED, method
            assert "see [access]" in reply["parameters"]["reason"]
        reply = await ask_as("nobody", daemon.place.socket, "org.varlink.service.GetInfo")
        assert reply["parameters"]["vendor"] == "factoryd"
        assert (await daemon.status())["issues"] == []


async def test_root_may_do_everything_though_nobody_is_configured():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play())
        await daemon.wait_running("A-1")
        assert (await daemon.call("Kill", targets=["A-1"]))["ended"] == ["A-1"]


# ------------------------------------------------------------------------------------------ agents

ASK_ALL = """
for who in 0 65534; do
  for call in Kill Submit Shutdown Status; do
    $PYTHON ../ask.py $who $who "$FACTORY_SOCKET" \
      "{\\"method\\":\\"io.factoryd.Control.$call\\",\\"parameters\\":$(cat ../$call.json)}" \
      | cut -c -100
    echo
  done
done
"""


async def test_a_process_inside_an_agents_tree_may_only_look_whatever_its_user():
    async with a_daemon(access='operators = ["nobody"]') as daemon:
        root = daemon.place.root
        (root / "ask.py").write_text(ASKER)
        for method, parameters in (*ACTS, ("Status", {})):
            (root / f"{method}.json").write_text(json.dumps(parameters))
        (root / "ask.sh").write_text(f"{ASK_ALL}\necho asked\n")
        daemon.place.put("A-1", play())
        # The caller is a daemonised grandchild in a session of its own.
        daemon.place.put("A-2", "(setsid -f /bin/sh ../ask.sh)\nexec sleep 600")
        await daemon.wait_running("A-1")
        await daemon.wait_issue("A-2", "running", when=is_started)
        with trio.fail_after(15):
            while True:
                logs = await daemon.call("Logs", target="A-2")
                lines = [line["text"] for line in logs["lines"] if line["text"]]
                if lines[-1:] == ["asked"]:
                    break
                await trio.sleep(0.05)
        assert len(lines) == 9
        for number, line in enumerate(lines[:-1]):
            assert ("you may only read" in line) is (number % 4 != 3), lines
        assert {issue["state"] for issue in (await daemon.status())["issues"]} == {"running"}


async def test_an_agents_factoryctl_shows_status_and_is_refused_a_kill():
    async with a_daemon() as daemon:
        ctl = '$PYTHON -m factoryctl --socket "$FACTORY_SOCKET" --json'
        daemon.place.put("A-1", play())
        await daemon.wait_running("A-1")
        script = f"set +e\n{ctl} status >../seen.json\necho status=$?\n"
        daemon.place.put(
            "A-2", f"{script}{ctl} kill A-1\necho kill=$?\n{ctl} kill A-2\necho own=$?"
        )
        await daemon.wait_issue("A-2", "done")
        logs = await daemon.call("Logs", target="A-2")
        said = [line["text"] for line in logs["lines"]]
        assert [line for line in said if "=" in line] == ["status=0", "kill=6", "own=6"]
        seen = json.loads((daemon.place.root / "seen.json").read_text())
        assert {issue["key"] for issue in seen["issues"]} == {"A-1", "A-2"}
        issue = await daemon.issue("A-1")
        assert issue is not None
        assert issue["state"] == "running"


# ----------------------------------------------------------------- callers that cannot be told


class Yes:
    """Methods that answer everything."""

    async def answer(self, interface, name, call, say):
        await say(AccessConfig())


CONNECT_AND_END = """
import socket, sys
caller, parent = socket.socket(socket.AF_UNIX), socket.socket(fileno=int(sys.argv[2]))
caller.connect(sys.argv[1])
socket.send_fds(parent, [b"x"], [caller.fileno()])
"""


async def test_a_caller_whose_process_is_gone_may_only_look():
    """Its pid may be another's by now: whom that belongs to says nothing about the caller."""
    with tempfile.TemporaryDirectory(prefix="fd-", dir="/tmp") as directory:
        path = Path(directory, "s")
        ours, theirs = socket.socketpair()
        with bind_control_socket(path).socket as listening, ours, theirs:
            command = [sys.executable, "-c", CONNECT_AND_END, str(path), str(theirs.fileno())]
            await trio.run_process(command, pass_fds=[theirs.fileno()])
            _, (descriptor,), _, _ = socket.recv_fds(ours, 1, 1)
            server = ControlServer(
                methods=Yes(),
                access=AccessConfig,
                accounts=SystemAccounts(),
                trees=FakeTrees(),
                pulse=Pulse("control", 30),
            )
            orphan = trio.socket.from_stdlib_socket(socket.socket(fileno=descriptor))
            orphan_stream = trio.SocketStream(orphan)
            async with trio.open_nursery() as nursery, orphan_stream:
                await nursery.start(server.serve, trio.SocketListener(listening))
                method = b'{"method":"io.factoryd.Control.%b"}\0'
                with trio.fail_after(5):
                    await orphan_stream.send_all(method % b"Kill")
                    assert DENIED.encode() in await orphan_stream.receive_some()
                    await orphan_stream.send_all(method % b"Status")
                    assert b"error" not in await orphan_stream.receive_some()
                    async with connect(path) as present:
                        await present.call("Kill")
                nursery.cancel_scope.cancel()
