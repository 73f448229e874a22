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
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.groups import end_group
from factoryd.adapters.cgroup import cgroup_of
from factoryd.daemon import tree_root_name

CONFIG = """
[factory]
slots = 1000
[resume]
max_resumes = 20
delay = "0s"
[stop]
grace = "{grace}"
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
stages = {stages}
[agents.agent]
kind = "command"
command = {agent}
[agents.other]
kind = "command"
command = {agent}
"""

NAP = ["sleep", "603.14159"]
"""What the second process of an agent is: nothing else on a machine sleeps for so long."""

AGENT = ["sh", "-c", f"{' '.join(NAP)} & wait"]
"""The agent of most measurements: two processes, which do nothing."""

SCRIPT = ["sh", "{issue_file}"]
"""An agent that does what its issue says: the text is a shell script, its title a comment there."""


class Factory:
    """A running daemon in a temporary directory; leaving it stops the daemon and all agents.

    The directory is in memory where there is such a place, so that the figures are factoryd's and
    not those of the disk, which is slow for minutes after the removal of many files. `stages` names
    the roles of the recipe, `agent` and `other`, which are one and the same program.
    """

    def __init__(
        self,
        agent: list[str] = AGENT,
        *,
        stages: Sequence[Sequence[str]] = (("agent",),),
        grace: str = "2s",
    ) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="fb-", dir=memory))
        (self.root / "issues" / "ready").mkdir(parents=True)
        (self.root / "repo").mkdir()
        stages_text, agent_text = json.dumps(stages), json.dumps(agent)
        config = CONFIG.format(stages=stages_text, agent=agent_text, grace=grace)
        (self.root / "factoryd.toml").write_text(config)
        self.socket = self.root / "rt" / "control.sock"

    def __enter__(self) -> Self:
        """Start the daemon and wait until it answers."""
        self.log = (self.root / "log").open("a")
        self.start()
        wait_until(self._answers)
        return self

    def start(self) -> None:
        """Start the daemon, the first one or the successor of one that died."""
        arguments = ["--state-dir", str(self.root / "st"), "--runtime-dir", str(self.root / "rt")]
        config = ["--config", str(self.root / "factoryd.toml")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "factoryd", "run", *config, *arguments], stderr=self.log
        )

    def die(self) -> None:
        """Kill the daemon as the kernel would: its agents go on."""
        self.process.kill()
        self.process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything, by force what does not stop when asked, and remove the directory."""
        try:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        finally:
            self.die()
            own = cgroup_of(os.getpid())
            if own is not None:
                end_group(Path(own, f"factoryd-{tree_root_name(self.root / 'st')}"))
            self.log.close()
            shutil.rmtree(self.root)

    def submit(
        self, count: int, script: Callable[[int], str] = lambda _: "Work.", *, first: int = 0
    ) -> None:
        """Put issues `B-first` and the next ones in, `count` of them, all at once."""
        staged = self.root / "staged"
        staged.mkdir()
        for n in range(first, first + count):
            head = f"key: B-{n}\ntitle: Issue {n}\nlabels: [factory]"
            text = f"---\n{head}\n---\n{script(n)}\n"
            (staged / f"b-{n}.md").write_text(text)
        for file in staged.iterdir():
            file.rename(self.root / "issues" / "ready" / file.name)
        staged.rmdir()

    def wait_running(self, count: int, *, pause_s: float = 0.5) -> None:
        """Return once so many agents run; a new daemon is asked again until it answers."""
        wait_until(lambda: self._running() >= count, seconds=120, pause_s=pause_s)

    def wait_up(self, n: int) -> None:
        """Return once the script of issue `B-n` has made the file `up-B-n` where it works."""
        wait_until((self.root / "repo" / f"up-B-{n}").exists, seconds=60)

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
        try:
            with Connection(self.socket) as connection:
                issues = connection.call("Status")["issues"]
        except OSError:
            return 0
        return sum(agent["state"] == "running" for one in issues for agent in one["agents"])


class Connection:
    """A raw connection to a control socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        try:
            self._socket.connect(os.fspath(path))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
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
