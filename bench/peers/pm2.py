"""pm2, asked by its own command and over the socket which that uses."""

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from bench.agents import Agent
from bench.ground import Ground, wait_for
from bench.peers.installed import NODE_PEERS


class Pm2:
    """An application in fork mode for each agent."""

    name = "pm2"
    notes = "an ecosystem file; fork mode; treekill (its default); kill_timeout 2000"

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._home = ground.root / "pm2"
        self._environ = {"PM2_HOME": str(self._home), "PM2_DISCRETE_MODE": "true"}
        self._pm2 = str(NODE_PEERS / "node_modules" / ".bin" / "pm2")
        self._ids: dict[str, int] = {}

    def version(self) -> str:
        """Return pm2's and Node's."""
        package = NODE_PEERS / "node_modules" / "pm2" / "package.json"
        node = self.ground.run(["node", "--version"]).strip()
        return f"pm2 {json.loads(package.read_text())['version']}, node {node}"

    def up(self) -> None:
        """Start the daemon."""
        self._run("ping")
        self._connect()

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write the ecosystem file."""
        apps = [
            {
                "name": agent.name,
                "script": script,
                "interpreter": "sh",
                "exec_mode": "fork",
                "kill_timeout": 2000,
                "min_uptime": 0,
                **self.more(agent),
            }
            for agent, script in zip(agents, self.ground.put(agents), strict=True)
        ]
        (self.ground.root / "ecosystem.json").write_text(json.dumps({"apps": apps}))

    def more(self, agent: Agent) -> dict[str, str]:  # noqa: ARG002  of a kind that has more
        """Return where an agent's output goes."""
        return {"out_file": "/dev/null", "error_file": "/dev/null"}

    def launch(self) -> None:
        """Start all that the file names."""
        self._run("start", str(self.ground.root / "ecosystem.json"))

    def status_command(self) -> list[str]:
        """Return pm2's, in the form for programs."""
        environ = [f"{name}={value}" for name, value in self._environ.items()]
        return ["env", *environ, self._pm2, "jlist"]

    def running(self) -> int:
        """Ask for the state of all."""
        (processes,) = self._call("getMonitorData", {})
        self._ids = {one["name"]: one["pm_id"] for one in processes}
        return sum(one["pm2_env"]["status"] == "online" for one in processes)

    def stop(self, agent: Agent) -> None:
        """Stop one, and wait for it."""
        if agent.name not in self._ids:
            self.running()
        self._call("stopProcessId", self._ids[agent.name])

    def stop_all(self) -> None:
        """Ask for the end of each at once, then wait for all answers."""
        self.running()
        for one in self._ids.values():
            self._send("stopProcessId", one)
        for _ in self._ids:
            self._receive()

    def supervisors(self) -> list[int]:
        """Return the daemon; what it has to know to go on is saved first, as one does."""
        self._run("save", "--force")
        return [int((self._home / "pm2.pid").read_text())]

    def restart(self) -> None:
        """Start the daemon with what was saved."""
        self._socket.close()
        self._run("resurrect")
        self._connect()

    def down(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _run(self, *words: str) -> str:
        return self.ground.run([self._pm2, *words], self._environ)

    def _connect(self) -> None:
        path = self._home / "rpc.sock"
        wait_for(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        self._socket.connect(str(path))

    def _call(self, method: str, *arguments: object) -> list[Any]:
        self._send(method, *arguments)
        return self._receive()

    def _send(self, method: str, *arguments: object) -> None:
        """Send a message of AMP: a byte for version and count, then each argument's length."""
        call = {"type": "call", "method": method, "args": arguments}
        parts = [f"j:{json.dumps(call)}".encode(), b"s:bench:0"]
        framed = b"".join(struct.pack(">I", len(part)) + part for part in parts)
        self._socket.sendall(bytes([1 << 4 | len(parts)]) + framed)

    def _receive(self) -> list[Any]:
        answer: dict[str, list[Any]] = {}
        (head,) = self._exactly(1)
        for _ in range(head & 0xF):
            (length,) = struct.unpack(">I", self._exactly(4))
            part = self._exactly(length)
            if part.startswith(b"j:"):
                answer = json.loads(part[2:])
        if "error" in answer:
            raise RuntimeError(f"pm2: {answer['error']}")
        return answer["args"]

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
            if not part:
                raise ConnectionResetError("pm2")
            parts += part
        return bytes(parts)


class _KeepingOutput(Pm2):
    @override
    def more(self, agent: Agent) -> dict[str, str]:
        """Have the output in a file."""
        file = str(self.ground.inside / f"out-{agent.number}.log")
        return {"out_file": file, "error_file": "/dev/null"}


KEEPING_OUTPUT = _KeepingOutput
"""The same with a log file for each agent."""
