"""circus, asked over ZeroMQ."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

import zmq
from typing_extensions import override

from bench.agents import Agent
from bench.ground import Ground
from bench.peers.installed import PYTHON_PEERS, python_version

CONFIG = """
[circus]
endpoint = ipc://{root}/e.sock
pubsub_endpoint = ipc://{root}/p.sock
"""

WATCHER = """
[watcher:{name}]
cmd = sh
args = {script}
graceful_timeout = 2
stop_children = True
copy_env = True
{more}
"""


class Circus:
    """A watcher of one process for each agent."""

    name = "circus"
    notes = (
        "a watcher for each agent; stop_children; graceful_timeout 2; check_delay as it is (5 s)"
    )

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._config = ground.root / "circus.ini"
        self._config.write_text(CONFIG.format(root=ground.root))
        self._endpoint = f"ipc://{ground.root}/e.sock"

    def version(self) -> str:
        """Return the package's."""
        return python_version("circus")

    def up(self) -> None:
        """Start circusd and connect to it; ZeroMQ waits for it by itself."""
        self._process = self.ground.start([_program("circusd"), str(self._config)])
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, 120_000)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        self._socket.connect(self._endpoint)
        self._ask("numwatchers")

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write their sections."""
        text = CONFIG.format(root=self.ground.root)
        for agent, script in zip(agents, self.ground.put(agents), strict=True):
            text += WATCHER.format(name=agent.name, script=script, more=self.more(agent))
        self._config.write_text(text)

    def more(self, agent: Agent) -> str:  # noqa: ARG002  of a kind that has more
        """Return what else is in an agent's section."""
        return ""

    def launch(self) -> None:
        """Have the configuration read again."""
        self._ask("reloadconfig", waiting=True)

    def status_command(self) -> list[str]:
        """Return circusctl's."""
        return [_program("circusctl"), "--endpoint", self._endpoint, "status"]

    def running(self) -> int:
        """Ask for the state of all."""
        answer = self._ask("status")
        statuses = answer["statuses"]
        assert isinstance(statuses, dict)
        return sum(state == "active" for state in statuses.values())

    def stop(self, agent: Agent) -> None:
        """Stop one, and wait for it."""
        self._ask("stop", name=agent.name, waiting=True)

    def stop_all(self) -> None:
        """Stop all, and wait for it."""
        self._ask("stop", waiting=True)

    def supervisors(self) -> list[int]:
        """Return circusd."""
        return [self._process.pid]

    def restart(self) -> None:
        """Start circusd with the same configuration."""
        self.down()
        self._process.wait()
        self.up()

    def down(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._context.term()

    def _ask(self, command: str, **properties: object) -> dict[str, object]:
        asked = uuid.uuid4().hex
        message = {"id": asked, "command": command, "properties": properties}
        self._socket.send(json.dumps(message).encode())
        while True:
            answer: dict[str, object] = json.loads(self._socket.recv())
            if answer.get("id") == asked:
                if answer.get("status") == "error":
                    raise RuntimeError(f"circus: {answer.get('reason')}")
                return answer


def _program(name: str) -> str:
    return str(Path(PYTHON_PEERS, "bin", name))


class _KeepingOutput(Circus):
    @override
    def more(self, agent: Agent) -> str:
        """Have the output in a file."""
        file = self.ground.inside / f"out-{agent.number}.log"
        return f"stdout_stream.class = FileStream\nstdout_stream.filename = {file}"


KEEPING_OUTPUT = _KeepingOutput
"""The same with a log file for each agent."""
