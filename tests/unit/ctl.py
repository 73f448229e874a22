"""Runs factoryctl as a real program, and has the answers a daemon might give it."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import trio

from factoryd.wire.answers import (
    AgentView,
    CountersView,
    DaemonView,
    HandoffView,
    IssueView,
    KilledView,
    ProblemView,
    SignalledView,
    SkippedView,
    SourceView,
    StatusReply,
)

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "factoryctl"]


def environ(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which nothing of this machine's own factory can be found."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in {"PATH", "PYTHONPATH"} or name.startswith("COVERAGE")
    }
    runtime = str(home / "runtime")
    return {**kept, "HOME": str(home), "XDG_RUNTIME_DIR": runtime, "TERM": "xterm-256color", **more}


class Ctl:
    """factoryctl for one daemon's socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket

    def command(self, *arguments: str) -> list[str]:
        return [*PROGRAM, "--socket", str(self.socket), *arguments]

    async def __call__(
        self, *arguments: str, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return await run(*self.command(*arguments), home=self.socket.parent, stdin=stdin)

    async def on_terminal(
        self, *arguments: str, typed: str = "", program=PROGRAM, **env: str
    ) -> tuple[int, str]:
        """Run it on a terminal of 100 columns; return its exit status and all that was shown."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 100))
        os.write(master, typed.encode())
        shown = bytearray()

        async def read() -> None:
            async with trio.lowlevel.FdStream(master) as stream:
                try:
                    async for part in stream:
                        shown.extend(part)
                except trio.BrokenResourceError:
                    pass  # that is how a terminal ends

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            try:
                done = await trio.run_process(
                    [*program, "--socket", str(self.socket), *arguments],
                    stdin=slave,
                    stdout=slave,
                    stderr=slave,
                    check=False,
                    cwd=ROOT,
                    env=environ(self.socket.parent, **env),
                )
            finally:
                os.close(slave)
        return done.returncode, shown.decode()


async def run(
    *command: str, home: Path, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, its output captured."""
    return await trio.run_process(
        list(command),
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        cwd=ROOT,
        env=environ(home, **env),
    )


def agent(name: str = "ar-255-impl", **changes) -> AgentView:
    fields = {
        "role": "implementer",
        "state": "running",
        "run": "r1",
        "pid": 4242,
        "started_at": "2026-01-01T11:58:00.000Z",
        "resumes": 0,
        "session": None,
        "processes": 3,
        "cpu_s": 75.0,
        "memory_bytes": 123_456_789,
        "peak_processes": 5,
        "last_output_at": None,
        "exit": None,
    }
    return AgentView(name=name, **{**fields, **changes})


def issue(key: str = "AR-255", **changes) -> IssueView:
    fields = {
        "title": "Mend the login",
        "state": "running",
        "attempt": 1,
        "round": 2,
        "stage": 0,
        "since": "2026-01-01T11:00:00.000Z",
        "not_before": None,
        "reason": None,
        "agents": (agent(),),
    }
    return IssueView(key=key, **{**fields, **changes})


def status(*issues: IssueView, **changes) -> StatusReply:
    daemon = DaemonView(
        pid=1,
        version="0.1.0",
        state="running",
        started_at="2026-01-01T10:00:00.000Z",
        containment="cgroup",
        paused=False,
        slots=5,
        free_slots=4,
        degraded=changes.pop("degraded", ()),
        heartbeat_age_s=0.2,
        adopted_runs=0,
        controllers=(),
    )
    source = SourceView(name="issues", kind="folder", state="ok", problems=())
    counters = CountersView(
        dispatched=3, done=1, failed=0, parked=1, resumed=0, name_collisions=0, reaped=0
    )
    fields = {"sources": (source,), "handoffs": (), **changes}
    return StatusReply(daemon=daemon, issues=issues, counters=counters, **fields)


def failing_source() -> SourceView:
    problem = ProblemView(where="a.md:3", reason="`key` is missing")
    return SourceView(name="issues", kind="folder", state="failing", problems=(problem,))


def handoff() -> HandoffView:
    return HandoffView(
        agent="ar-9-impl",
        issue="AR-9",
        run="r9",
        reason="a process does not die",
        since="2026-01-01T11:59:30.000Z",
    )


def killed(**changes) -> KilledView:
    fields = {
        "agent": "ar-255-impl",
        "run": "r1",
        "signals": ("SIGTERM", "SIGKILL"),
        "killed": 3,
        "signalled": (SignalledView(pid=7, signals=("SIGTERM", "SIGKILL")),),
        "skipped": (SkippedView(pid=1, reason="protected"),),
        "survivors": 0,
        "emptied": True,
        "took_s": 0.05,
    }
    return KilledView(**{**fields, **changes})
