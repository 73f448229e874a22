"""No supervisor: a loop around `subprocess.Popen`, and one of trio."""

import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from bench.agents import Agent
from bench.ground import Ground, wait_for
from bench.peers.port import Cannot

PROGRAMS = Path(__file__).parents[1] / "programs"


class _Loop:
    """A program of `bench.programs`, asked over a socket."""

    name: str
    notes: str
    program: str

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._scripts: list[str] = []

    def up(self, scripts: Sequence[str] = ()) -> None:
        """Start the loop."""
        path = self.ground.root / "loop.sock"
        path.unlink(missing_ok=True)
        command = [sys.executable, str(PROGRAMS / self.program), str(path), *scripts]
        self._process = self.ground.start(command)
        wait_for(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except ConnectionRefusedError:  # bound, but it does not listen yet
                time.sleep(0.001)
        self._lines = self._socket.makefile("rwb")

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write their files."""
        self._scripts = self.ground.put(agents)

    def launch(self) -> None:
        """Have all started."""
        self._ask(do="start", scripts=self._scripts)

    def status_command(self) -> list[str]:
        """There is none."""
        raise Cannot("it has no command")

    def running(self) -> int:
        """Ask how many run."""
        return self._ask(do="count")

    def stop(self, agent: Agent) -> None:
        """Have the process group of one ended."""
        self._ask(do="stop", script=str(self.ground.inside / f"agents/{agent.name}.sh"))

    def stop_all(self) -> None:
        """Have all process groups ended."""
        self._ask(do="stop-all")

    def supervisors(self) -> list[int]:
        """Return the loop."""
        return [self._process.pid]

    def restart(self) -> None:
        """Start it with all agents, as it knows of none."""
        self.down()
        self._process.wait()
        self.up(self._scripts)

    def down(self) -> None:
        """Close the connection."""
        self._lines.close()
        self._socket.close()

    def _ask(self, **request: object) -> int:
        self._lines.write(json.dumps(request).encode() + b"\n")
        self._lines.flush()
        return int(self._lines.readline())


class PopenLoop(_Loop):
    """The loop that everybody writes first."""

    name = "bare Popen"
    notes = "a loop around subprocess.Popen; stops process groups; does not notice an exit"
    program = "popen_loop.py"

    def version(self) -> str:
        """Return Python's."""
        return f"Python {sys.version.split()[0]}"


class TrioLoop(_Loop):
    """A task for each agent."""

    name = "bare trio"
    notes = "a trio task for each agent; stops process groups; starts again what exits"
    program = "trio_loop.py"

    def version(self) -> str:
        """Return trio's."""
        return f"trio {trio.__version__}"
