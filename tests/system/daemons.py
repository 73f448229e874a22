"""Real daemons for tests: each in a short directory of its own, talked to over its socket."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import psutil
import trio

from factoryd.adapters.cgroup import cgroup_of
from factoryd.adapters.pidfd import PidFd, open_verified
from factoryd.adapters.proc import list_pids, read_stats
from factoryd.adapters.sweep import mark_of, read_mark
from factoryd.core.model import RunId
from factoryd.daemon import tree_root_name
from factoryd.wire.framing import END, INTERFACE
from tests.conftest import empty
from tests.groups import list_pids_below

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "tests" / "fakes" / "agent.py"
WITHIN_S = 15.0
"""A deadline for what takes milliseconds on an idle machine."""

_OURS = ("JOURNAL_STREAM", "NOTIFY_SOCKET", "FACTORYD_SOCKET")
_DIRECTORIES = ("CONFIGURATION_DIRECTORY", "STATE_DIRECTORY", "RUNTIME_DIRECTORY")

CONFIG = """
[factory]
slots = 20
poll_interval = "1s"
{factory}
[dispatch]
max_attempts = 1
error_cooldown = "100ms"
{dispatch}
[resume]
max_resumes = 0
{resume}
[stop]
grace = "300ms"
{stop}
[safety]
require_label = ""
{safety}
[output]
journal = false
{output}
[access]
operators = []
readers = []
{access}
[[sources]]
kind = "folder"
path = "issues"

[repos.here]
path = "work"
workspace = "none"

[[routes]]
default = true
repo = "here"
recipe = "one"

[recipes.one]
stages = [["worker"]]

[agents.worker]
kind = "command"
name = "w"
command = ["/bin/sh", "-eu", "{{issue_file}}"]
env = {{ AGENT = "{agent}", PYTHON = "{python}", PYTHONPATH = "{root}" }}
{agents}
"""
"""An issue's text is the script its agent runs: its title is a comment there."""


def play(*steps: str) -> str:
    """Return a script that becomes `tests/fakes/agent.py`, says that it is up, and sleeps."""
    return f"exec $PYTHON $AGENT {' '.join(steps)} say:up sleep"


class CallFailed(Exception):
    """The daemon answered with an error."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        super().__init__(f"{reply['error']}: {reply.get('parameters')}")
        self.name = reply["error"].rpartition(".")[2]
        self.parameters = reply.get("parameters", {})


class Client:
    """A small Varlink client that shares no code with factoryd."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, method: str, parameters: object = None, **flags: bool) -> None:
        """Send a call; a method without an interface is one of the control interface."""
        full = method if "." in method else f"{INTERFACE}.{method}"
        call: dict[str, object] = {"method": full, **flags}
        if parameters is not None:
            call["parameters"] = parameters
        await self.stream.send_all(json.dumps(call).encode() + END)

    async def receive(self) -> dict[str, Any]:
        """Return the next reply; raise `EOFError` when the daemon has closed the connection."""
        with trio.fail_after(WITHIN_S):
            while END not in self._buffer:
                received = await self.stream.receive_some(1 << 20)
                if not received:
                    raise EOFError
                self._buffer += received
        message, _, rest = bytes(self._buffer).partition(END)
        self._buffer = bytearray(rest)
        return dict(json.loads(message))

    async def answer(self) -> dict[str, Any]:
        """Return the next reply's parameters; raise `CallFailed` when it is an error."""
        reply = await self.receive()
        if "error" in reply:
            raise CallFailed(reply)
        assert not reply.get("continues", False)
        return dict(reply.get("parameters", {}))

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Make a call with one answer and return its parameters."""
        await self.send(method, parameters)
        return await self.answer()

    def stream_of(self, method: str, **parameters: object) -> "Stream":
        """Make a call with many answers when iterated; yields the parameters of each."""
        return Stream(self, method, parameters)

    async def wait_closed(self, within_s: float = WITHIN_S) -> None:
        """Return once the daemon has closed the connection; what it still says is dropped."""
        with trio.fail_after(within_s):
            try:
                while await self.stream.receive_some(1 << 20):
                    pass
            except trio.BrokenResourceError:
                pass


class Stream:
    """The answers to one call, up to the last."""

    def __init__(self, client: Client, method: str, parameters: object) -> None:
        self._client = client
        self._call = (method, parameters)
        self._begun = False
        self._continues = True

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> dict[str, Any]:
        if not self._begun:
            self._begun = True
            await self._client.send(*self._call, more=True)
        if not self._continues:
            raise StopAsyncIteration
        reply = await self._client.receive()
        if "error" in reply:
            raise CallFailed(reply)
        self._continues = reply.get("continues", False)
        return dict(reply.get("parameters", {}))


@asynccontextmanager
async def connect(socket: Path) -> AsyncIterator[Client]:
    """Connect to a daemon's socket, waiting until it is there."""
    stream = None
    with trio.fail_after(WITHIN_S):
        while stream is None:
            try:
                stream = await trio.open_unix_socket(str(socket))
            except OSError:
                await trio.sleep(0.01)
    async with stream:
        yield Client(stream)


ASKER = """
import os, socket, sys
uid, gid, path, message = sys.argv[1:]
os.setgroups([])
os.setresgid(*[int(gid)] * 3)
os.setresuid(*[int(uid)] * 3)
with socket.socket(socket.AF_UNIX) as caller:
    caller.connect(path)
    caller.sendall(message.encode() + bytes(1))
    reply = b""
    while not reply.endswith(bytes(1)) and (part := caller.recv(65536)):
        reply += part
sys.stdout.write(reply[:-1].decode())
"""
"""Becomes another user, makes one call and prints the reply."""


async def ask_as(user: str, socket: Path, method: str, **parameters: object) -> dict[str, Any]:
    """Return the reply that a process of another user, without groups, gets to a call."""
    account = pwd.getpwnam(user)
    full = method if "." in method else f"{INTERFACE}.{method}"
    call = json.dumps({"method": full, "parameters": parameters})
    asker = [sys.executable, "-c", ASKER, str(account.pw_uid), str(account.pw_gid)]
    with trio.fail_after(WITHIN_S):
        done = await trio.run_process([*asker, str(socket), call], capture_stdout=True)
    return dict(json.loads(done.stdout))


class Daemon:
    """A `python -m factoryd run` that a test has started."""

    def __init__(self, place: "Place", process: trio.Process) -> None:
        self.place = place
        self.process = process

    @property
    def pid(self) -> int:
        """Return its process id; it is ours to wait for, so nobody else's."""
        return self.process.pid

    async def status(self, *targets: str) -> dict[str, Any]:
        """Return what `Status` answers."""
        return await self.call("Status", targets=targets)

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Make one call over a connection of its own."""
        async with connect(self.place.socket) as client:
            return await client.call(method, **parameters)

    async def issue(self, key: str) -> dict[str, Any] | None:
        """Return an issue as status shows it, None when it does not."""
        shown = (await self.status())["issues"]
        return next((one for one in shown if one["key"] == key), None)

    async def wait_issue(
        self, key: str, *states: str, when: Callable[[Any], bool] = bool
    ) -> dict[str, Any]:
        """Return an issue once it is in one of the states and `when` holds for it."""
        seen: object = None
        with trio.move_on_after(WITHIN_S):
            while True:
                seen = one = await self.issue(key)
                if one is not None and (not states or one["state"] in states) and when(one):
                    return one
                await trio.sleep(0.02)
        raise AssertionError(f"{key} never was {states}: {seen}\n{self.place.log}")

    async def wait_running(self, key: str) -> dict[str, Any]:
        """Return the agent of an issue once it has written `up` to its output."""
        agent: dict[str, Any] = (
            await self.wait_issue(key, "running", when=lambda one: any(map(_is_up, one["agents"])))
        )["agents"][0]
        output = self.place.state / "runs" / key / agent["run"] / "output"
        await self.place.wait_for(lambda: output.exists() and b"up" in output.read_bytes())
        return agent

    async def kinds_of(self, key: str | None) -> list[str]:
        """Return what kinds of facts an issue has, or all issues have, the oldest first."""
        return [fact["kind"] for fact in (await self.call("Events", issue=key))["facts"]]

    async def wait_fact(self, key: str, kind: str) -> None:
        """Wait until a fact of this kind is known of an issue."""
        with trio.move_on_after(WITHIN_S):
            while True:
                if kind in await self.kinds_of(key):
                    return
                await trio.sleep(0.02)
        raise AssertionError(f"{key} never had {kind}\n{self.place.log}")

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def wait(self, within_s: float = WITHIN_S) -> int:
        """Return its exit status once it has ended by itself."""
        with trio.move_on_after(within_s):
            return await self.process.wait()
        raise AssertionError(f"the daemon does not end\n{self.place.log}")

    async def stop(self, number: Signals = SIGTERM, within_s: float = WITHIN_S) -> int:
        """End it in good order and return its exit status; nothing of it may be left."""
        self.signal(number)
        status = await self.wait(within_s)
        assert self.place.survivors() == []
        return status


def is_started(issue: dict[str, Any]) -> bool:
    """Say whether an issue's agent has a process."""
    return bool(issue["agents"]) and issue["agents"][0]["pid"] is not None


def _is_up(agent: Mapping[str, Any]) -> bool:
    return agent["state"] == "running" and agent["pid"] is not None


class Place:
    """A directory with a configuration, issues and all that a daemon keeps there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "factoryd.toml"
        self.state = root / "s"
        self.runtime = root / "r"
        self.socket = self.runtime / "control.sock"
        self.ready = root / "issues" / "ready"
        self.program: tuple[str, ...] = ("-m", "factoryd")

    @property
    def log(self) -> str:
        """Return what daemons here have written to standard error."""
        return (self.root / "log").read_text(errors="replace")

    @property
    def cgroup(self) -> Path:
        """Return the cgroup that holds the trees of daemons here, made or not."""
        own = cgroup_of(os.getpid())
        assert own is not None, "no cgroup2 here"
        return Path(own, f"factoryd-{tree_root_name(self.state)}")

    def put(self, key: str, script: str, title: str = "Test", **more: str) -> Path:
        """Put an issue, complete at once, where the daemon finds it."""
        lines = "".join(f"{name}: {value}\n" for name, value in more.items())
        text = f"---\nkey: {key}\ntitle: {title}\n{lines}---\n{script}\n"
        self.ready.mkdir(parents=True, exist_ok=True)
        hidden, path = self.ready / f".{key}.tmp", self.ready / f"{key}.md"
        hidden.write_text(text)
        hidden.rename(path)
        return path

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `factoryd run` here."""
        return [
            *(sys.executable, *self.program, "run", "--config", str(self.config)),
            *("--state-dir", str(self.state), "--runtime-dir", str(self.runtime), *arguments),
        ]

    def environment(self, **more: str) -> dict[str, str]:
        """Return a daemon's environment: ours, without what services are given."""
        inherited = {k: v for k, v in os.environ.items() if k not in {*_OURS, *_DIRECTORIES}}
        return {**inherited, "PYTHONPATH": str(ROOT), **more}

    async def run(
        self, *arguments: str, command: Sequence[str] | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `factoryd run` here to its end, or another command in its environment."""
        with trio.fail_after(2 * WITHIN_S):
            done = await trio.run_process(
                command or self.command(*arguments),
                env=self.environment(**more),
                cwd=self.root,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    async def start(self, *arguments: str, **more: str) -> Daemon:
        """Start a daemon; whoever does so ends it."""
        with (self.root / "log").open("ab") as log:
            process = await trio.lowlevel.open_process(
                self.command(*arguments),
                env=self.environment(**more),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return Daemon(self, process)

    @asynccontextmanager
    async def daemon(self, *arguments: str, **more: str) -> AsyncIterator[Daemon]:
        """Run a daemon that answers; it is stopped at the end, unless the test has done that."""
        daemon = await self.start(*arguments, **more)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fail_when_ended, daemon)
                await daemon.call("Health")
                nursery.cancel_scope.cancel(reason="it answers")
            yield daemon
            if daemon.process.returncode is None:
                assert await daemon.stop() == 0, self.log
        finally:
            with trio.CancelScope(shield=True):
                if daemon.process.returncode is None:
                    daemon.process.kill()
                await daemon.process.wait()

    def survivors(self) -> list[str]:
        """Return the processes that agents here have left, by their cgroup and by their marks."""
        pids = set(list_pids_below(self.cgroup / "agents"))
        marked = f"FACTORY_SOCKET={self.socket}".encode()
        for process in psutil.process_iter():
            try:
                environ = Path("/proc", str(process.pid), "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if marked in environ:
                pids.add(process.pid)
        return [f"{pid} {_describe(pid)}" for pid in sorted(pids)]

    async def wait_for(self, holds: Callable[[], object], within_s: float = WITHIN_S) -> None:
        """Return once something holds; it is looked at again and again."""
        with trio.move_on_after(within_s):
            while not holds():  # noqa: ASYNC110  it is not of this process
                await trio.sleep(0.02)
            return
        raise AssertionError(f"it never came true\n{self.log}")


async def eventually(holds: Callable[[], Awaitable[object]], within_s: float = WITHIN_S) -> None:
    """Return once what a coroutine says is true."""
    with trio.fail_after(within_s):
        while not await holds():  # noqa: ASYNC110  it is not of this process
            await trio.sleep(0.02)


def is_stopped(pid: int) -> bool:
    """Say whether a process has no thread left that could still act on a signal."""
    states = list[bool]()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            states.append(b") T " in stat.read_bytes())
    return all(states)


def _describe(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return "(ended)"


async def _fail_when_ended(daemon: Daemon) -> None:
    status = await daemon.process.wait()
    raise AssertionError(f"the daemon ended with {status}\n{daemon.place.log}")


@contextmanager
def a_place(**sections: str) -> Iterator[Place]:
    """Make a place for daemons; `sections` are lines to add to the configuration, by section.

    At the end nothing may be left running there.
    """
    # Unix sockets have paths of at most 107 bytes; a test's own directory may be longer.
    root = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    root.chmod(0o755)  # for other users to reach the socket
    place = Place(root)
    try:
        for directory in (place.ready, root / "work"):
            directory.mkdir(parents=True)
        (root / "log").touch()
        place.config.write_text(configuration(**sections))
        yield place
        assert place.survivors() == []
    finally:
        if place.cgroup.is_dir():
            empty(place.cgroup)
        end_marked(place)
        shutil.rmtree(root)


def end_marked(place: Place) -> None:
    """Kill what runs without cgroups have left here: their mark is on whatever they started."""
    name = tree_root_name(place.state)
    marks = {mark_of(name, RunId(run.name)) for run in place.state.glob("runs/*/*")}
    until = time.monotonic() + 5
    while marks and (left := [pid for pid in list_pids() if is_marked(pid, marks)]):
        assert time.monotonic() < until, f"{left} cannot be ended"
        for stat in read_stats(left).values():
            process = open_verified(stat.identity)
            if isinstance(process, PidFd):
                with process:
                    process.send(SIGKILL)
        time.sleep(0.001)


def is_marked(pid: int, marks: set[int]) -> bool:
    """Say whether a process that has not ended has one of these marks."""
    return read_mark(pid) in marks and bool(read_stats([pid]))


def configuration(**sections: str) -> str:
    """Return the configuration of a place, with lines added to its sections."""
    names = ("factory", "dispatch", "resume", "stop", "safety", "output", "access", "agents")
    lines: dict[str, object] = dict.fromkeys(names, "")
    for name, added in sections.items():
        assert name in lines, name
        lines[name] = added
    text = CONFIG.format(agent=AGENT, python=sys.executable, root=ROOT, **lines)
    return _last_wins(text)


def _last_wins(text: str) -> str:
    """Drop a key's earlier line where a section sets it twice."""
    kept: list[str] = []
    section = 0
    for line in text.splitlines():
        if line.startswith("["):
            section = len(kept)
        key = line.partition(" = ")[0]
        kept[section:] = [
            old for old in kept[section:] if " = " not in line or old.partition(" = ")[0] != key
        ]
        kept.append(line)
    return "\n".join(kept)


@asynccontextmanager
async def a_daemon(**sections: str) -> AsyncIterator[Daemon]:
    """Run a daemon in a place of its own."""
    with a_place(**sections) as place:
        async with place.daemon() as daemon:
            yield daemon
