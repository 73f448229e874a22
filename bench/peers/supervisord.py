"""supervisord, asked by XML-RPC."""

import http.client
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from xmlrpc.client import ServerProxy, Transport

from typing_extensions import override

from bench.agents import Agent
from bench.ground import Ground
from bench.peers.installed import PYTHON_PEERS, python_version

CONFIG = """
[unix_http_server]
file = {root}/s.sock
[supervisord]
nodaemon = true
logfile = {root}/supervisord.log
pidfile = {root}/supervisord.pid
childlogdir = {root}
minfds = 8192
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://{root}/s.sock
[include]
files = {root}/agents.conf
"""

PROGRAM = """
[program:agent]
command = sh {root}/agents/agent-%(process_num)d.sh
process_name = agent-%(process_num)d
numprocs = {count}
numprocs_start = {first}
autorestart = true
startsecs = 0
stopwaitsecs = 2
stopasgroup = true
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 64MB
stdout_logfile_backups = 0
"""


class Supervisord:
    """One program of as many processes as there are agents."""

    name = "supervisord"
    notes = "numprocs; startsecs 0; stopasgroup and killasgroup; stopwaitsecs 2"
    log = "NONE"

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self._config = ground.root / "supervisord.conf"
        self._config.write_text(CONFIG.format(root=ground.root))
        self._server = ServerProxy("http://localhost", _UnixTransport(str(ground.root / "s.sock")))

    def version(self) -> str:
        """Return the package's."""
        return python_version("supervisor")

    def up(self) -> None:
        """Start supervisord."""
        self._process = self.ground.start([_program("supervisord"), "-c", str(self._config)])
        self._wait_answer()

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write the program's section."""
        self.ground.put(agents)
        first = agents[0].number
        root = self.ground.root
        text = PROGRAM.format(
            root=root, count=len(agents), first=first, log=self.log.format(root=root)
        )
        (root / "agents.conf").write_text(text)

    def launch(self) -> None:
        """Do what `supervisorctl update` does."""
        self._server.supervisor.reloadConfig()
        self._server.supervisor.addProcessGroup("agent")

    def status_command(self) -> list[str]:
        """Return supervisorctl's, which succeeds for a list that names stopped ones, too."""
        return [_program("supervisorctl"), "-c", str(self._config), "status"]

    def running(self) -> int:
        """Ask for the state of all; the connection is kept open."""
        answer = self._server.supervisor.getAllProcessInfo()
        assert isinstance(answer, list)
        return sum(one["statename"] == "RUNNING" for one in answer)

    def stop(self, agent: Agent) -> None:
        """Stop one, and wait for it."""
        self._server.supervisor.stopProcess(f"agent:{agent.name}")

    def stop_all(self) -> None:
        """Stop all, and wait for it."""
        self._server.supervisor.stopAllProcesses()

    def supervisors(self) -> list[int]:
        """Return supervisord."""
        return [self._process.pid]

    def restart(self) -> None:
        """Start supervisord with the same configuration."""
        self._server("close")()
        self._process.wait()
        self.up()

    def down(self) -> None:
        """Close the connection."""
        self._server("close")()

    def _wait_answer(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(OSError):
                self._server.supervisor.getState()
                return
            time.sleep(0.005)
        raise TimeoutError("supervisord does not answer")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class _UnixTransport(Transport):
    """XML-RPC over a connection that stays open."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._kept: _UnixConnection | None = None

    @override
    def make_connection(self, _host: object) -> http.client.HTTPConnection:
        if self._kept is None:
            self._kept = _UnixConnection(self._path)
        return self._kept

    @override
    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _program(name: str) -> str:
    return str(Path(PYTHON_PEERS, "bin", name))


class _KeepingOutput(Supervisord):
    log = "{root}/out-%(process_num)d.log"


KEEPING_OUTPUT = _KeepingOutput
"""The same with a log file for each agent."""
