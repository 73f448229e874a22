"""A factory to measure: a daemon of its own, issues for it, and calls over its socket."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CONFIG = """
[factory]
slots = 1000
[stop]
grace = "2s"
[[sources]]
kind = "folder"
path = "issues"
[repos.bench]
path = "repo"
workspace = "none"
[[routes]]
default = true
repo = "bench"
recipe = "one"
[recipes.one]
stages = [["agent"]]
[agents.agent]
kind = "command"
command = ["sh", "-c", "sleep 603.14159 & wait"]
"""

NAP = ["sleep", "603.14159"]
"""What the second process of an agent is: nothing else on a machine sleeps for so long."""

AGENT = ["sh", "-c", f"{' '.join(NAP)} & wait"]
"""The agent of all measurements: two processes, which do nothing."""


class Factory:
    """A running daemon in a temporary directory; leaving it stops the daemon and all agents.

    The directory is in memory where there is such a place, so that the figures are factoryd's and
    not those of the disk, which is slow for minutes after the removal of many files.
    """

    def __init__(self) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="fb-", dir=memory))
        (self.root / "issues" / "ready").mkdir(parents=True)
        (self.root / "repo").mkdir()
        (self.root / "factoryd.toml").write_text(CONFIG)
        self.socket = self.root / "rt" / "control.sock"

    def __enter__(self) -> Self:
        """Start the daemon and wait until it answers."""
        arguments = ["--state-dir", str(self.root / "st"), "--runtime-dir", str(self.root / "rt")]
        config = ["--config", str(self.root / "factoryd.toml")]
        self.log = (self.root / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "factoryd", "run", *config, *arguments], stderr=self.log
        )
        wait_until(self._answers)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything and remove the directory."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()
        shutil.rmtree(self.root)

    def submit(self, count: int) -> None:
        """Put `count` issues in, all at once."""
        staged = self.root / "staged"
        staged.mkdir()
        for n in range(count):
            text = f"---\nkey: B-{n}\ntitle: Issue {n}\nlabels: [factory]\n---\nWork.\n"
            (staged / f"b-{n}.md").write_text(text)
        for file in staged.iterdir():
            file.rename(self.root / "issues" / "ready" / file.name)
        staged.rmdir()

    def wait_running(self, count: int) -> None:
        """Return once so many agents run."""
        wait_until(lambda: self._running() >= count, seconds=120, pause_s=0.5)

    def facts(self, kind: str) -> list[dict[str, Any]]:
        """Return all facts of one kind."""
        found: list[dict[str, Any]] = []
        since = 0
        with Connection(self.socket) as connection:
            while True:
                facts = connection.call("Events", since=since, limit=10000)["facts"]
                if not facts:
                    return found
                since = facts[-1]["seq"]
                found += [fact for fact in facts if fact["kind"] == kind]

    def _answers(self) -> bool:
        try:
            with Connection(self.socket) as connection:
                return bool(connection.call("Health"))
        except OSError:
            return False

    def _running(self) -> int:
        with Connection(self.socket) as connection:
            issues = connection.call("Status")["issues"]
        return sum(agent["state"] == "running" for one in issues for agent in one["agents"])


class Connection:
    """A raw connection to a control socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(os.fspath(path))

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._socket.close()

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call a method and return its answer."""
        answer: dict[str, Any] = json.loads(self.call_raw(method, **parameters))["parameters"]
        return answer

    def call_raw(self, method: str, **parameters: object) -> bytes:
        """Call a method and return its answer undecoded."""
        call = {"method": f"io.factoryd.Control.{method}", "parameters": parameters}
        self._socket.sendall(json.dumps(call).encode() + b"\0")
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\0"):
            part = self._socket.recv(1 << 20)
            if not part:
                raise ConnectionResetError
            parts.append(part)
        return b"".join(parts)[:-1]


def wait_until(holds: Callable[[], bool], seconds: float = 30, pause_s: float = 0.05) -> None:
    """Return once a condition holds; raise `TimeoutError` when it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(pause_s)
