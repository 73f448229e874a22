"""A factoryd that runs as a service: its place, its configuration, and what it answers."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.vm.guest.units import Unit, User
from tests.vm.guest.waiting import WITHIN_S, wait_until

INTERFACE = "io.factoryd.Control"

FINAL = ("done", "parked", "cancelled", "escalated")

CONFIG = """
[factory]
slots = 10

[dispatch]
max_attempts = 1

[resume]
max_resumes = 0

[stop]
grace = "500ms"

[safety]
require_label = ""

[heartbeat]
interval = "1s"

[output]
journal = false

[access]
operators = []
readers = []

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
command = ["/bin/sh", "-eu", "{issue_file}"]
"""
"""An issue's text is the script its agent runs, its title a comment there."""


class Daemon:
    """A factoryd as a service, in a directory of its own."""

    def __init__(
        self,
        name: str,
        *,
        account: str | None = None,
        user: User | None = None,
        agent: str = "",
        command: tuple[str, ...] = (),
        shipped: bool = False,
        **settings: str,
    ) -> None:
        self.root = Path("/srv", name)
        self.work = self.root / "work"
        self.ready = self.root / "issues" / "ready"
        self._socket = self.root / "run" / "control.sock"
        self.work.mkdir(parents=True)
        self.ready.mkdir(parents=True)
        (self.root / "factoryd.toml").write_text(f"{CONFIG}{agent}\n")
        if account is not None:
            subprocess.run(["chown", "-R", account, self.root], check=True)
        places = {"config": "factoryd.toml", "state-dir": "state", "runtime-dir": "run"}
        self._options = [f"--{option}={self.root / place}" for option, place in places.items()]
        program = [sys.executable, "-m", "factoryd"]
        if shipped:
            settings["ExecStopPost"] = " ".join([*program, "reap", "--after-stop", *self._options])
            settings["ReadWritePaths"] = str(self.root)
        words = [*command, *program, "run", *self._options]
        self.unit = Unit(
            f"factoryd-{name}",
            user or User(),
            shipped=shipped,
            ExecStart=" ".join(words),
            Environment=f"PYTHONPATH={os.environ['PYTHONPATH']}",
            **settings,
        )

    def put(self, key: str, script: str) -> None:
        """Put an issue, complete at once, where the daemon finds it."""
        hidden = self.ready / f".{key}.tmp"
        hidden.write_text(f"---\nkey: {key}\ntitle: Check\n---\n{script}\n")
        hidden.rename(self.ready / f"{key}.md")

    def call(self, method: str, *, more: bool = False, **parameters: object) -> list[Any]:
        """Return the parameters of every answer to a call; an error is raised."""
        request = {"method": f"{INTERFACE}.{method}", "parameters": parameters, "more": more}
        answers: list[Any] = []
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(WITHIN_S)
            caller.connect(str(self._socket))
            caller.sendall(json.dumps(request).encode() + b"\0")
            left = b""
            while not answers or answers[-1].get("continues"):
                part = caller.recv(1 << 16)
                assert part, f"{method} is not answered to its end: {answers}"
                *messages, left = (left + part).split(b"\0")
                answers += map(json.loads, messages)
        wrong = [answer for answer in answers if "error" in answer]
        assert not wrong, f"{method}: {wrong}"
        return [answer.get("parameters", {}) for answer in answers]

    def status(self) -> Any:
        """Return what `Status` answers."""
        return self.call("Status")[0]

    def issue(self, key: str) -> Any:
        """Return an issue as status shows it."""
        shown = [one for one in self.status()["issues"] if one["key"] == key]
        return shown[0] if shown else {"state": "unknown", "agents": []}

    def wait_state(self, key: str, state: str) -> Any:
        """Return an issue once it is in a state; another that is its last is told at once."""
        wait_until(lambda: self.issue(key)["state"] in {state, *FINAL}, f"{key} is not {state}")
        issue = self.issue(key)
        assert issue["state"] == state, issue
        return issue

    def wait_running(self, key: str) -> Any:
        """Return the agent of an issue once it has written `up` to its output."""

        def is_up() -> bool:
            files = (self.root / "state" / "runs" / key).glob("*/output")
            agents = self.issue(key)["agents"]
            running = agents and agents[0]["state"] == "running" and agents[0]["pid"]
            return bool(running) and any(b"up" in file.read_bytes() for file in files)

        wait_until(is_up, f"no agent of {key} is up")
        return self.issue(key)["agents"][0]

    def kill(self, key: str, **how: object) -> Any:
        """End an issue and return the report on its one run."""
        answers = self.call("Kill", more=True, targets=[key], **how)
        (report,) = [agent for answer in answers for agent in answer["agents"]]
        return report

    def facts(self, kind: str, key: str) -> list[Any]:
        """Return an issue's facts of one kind, oldest first."""
        answer = self.call("Events", issue=key)[0]
        return [fact["body"] for fact in answer["facts"] if fact["kind"] == kind]

    def factoryctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `factoryctl` to its end."""
        program = [sys.executable, "-m", "factoryctl", *self._options, *words]
        return subprocess.run(program, capture_output=True, text=True, check=False)


@contextmanager
def a_daemon(name: str, **how: Any) -> Iterator[Daemon]:
    """Run a daemon as a service that is ready; at the end it stops and leaves nothing."""
    daemon = Daemon(name, **how)
    try:
        daemon.unit.start()
        yield daemon
        daemon.unit.stop()
    except BaseException as error:
        error.add_note(daemon.unit.journal())
        daemon.unit.end()
        raise
