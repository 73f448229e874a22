"""s6: `s6-svscan` with an `s6-supervise` for each agent."""

import struct
import time
from pathlib import Path

from typing_extensions import override

from bench.agents import Agent
from bench.ground import wait_for
from bench.peers.supervision import Supervision, debian_version

PID_AT = 24
"""Where the pid is in `supervise/status`, after two time stamps of 12 bytes, big-endian."""


class S6(Supervision):
    """Services are linked into the scan directory, which is then looked at."""

    name = "s6"
    notes = "s6-svscan; timeout-kill 2000; an s6-supervise for each agent is started with it"
    programs = frozenset(("s6-svscan", "s6-supervise"))

    def version(self) -> str:
        """Return the package's."""
        return debian_version("s6", self.ground.run(["dpkg-query", "-Wf${Version}", "s6"]))

    def up(self) -> None:
        """Start s6-svscan; its limit of services is 500 unless told otherwise."""
        self._process = self.ground.start(["s6-svscan", "-c", "2000", str(self.scan)])
        wait_for(self.scan / ".s6-svscan" / "control")
        time.sleep(0.1)  # it opens the pipe for reading right after having made it

    @override
    def configure(self, service: Path) -> None:
        """Set the grace."""
        (service / "timeout-kill").write_text("2000\n")

    def launch(self) -> None:
        """Link the services and have the directory looked at."""
        self.publish()
        self.ground.run(["s6-svscanctl", "-a", str(self.scan)])

    def status_command(self) -> list[str]:
        """Return one command for each agent, as there is none for all."""
        return ["sh", "-c", f'for one in {self.scan}/*; do s6-svstat "$one"; done']

    def running(self) -> int:
        """Read the status files, which is what s6-svstat does."""
        texts = ((each / "supervise" / "status").read_bytes() for each in self.services)
        return sum(struct.unpack_from(">Q", text, PID_AT)[0] != 0 for text in texts)

    def stop(self, agent: Agent) -> None:
        """Bring one down and wait until it is, finish script included."""
        self.ground.run(["s6-svc", "-wD", "-T", "10000", "-d", str(self.scan / agent.name)])

    def stop_all(self) -> None:
        """Bring all down through their control pipes, and wait for it."""
        for service in self.services:
            self.control(service, b"d")
        while self.running():
            time.sleep(0.002)

    def restart(self) -> None:
        """Start s6-svscan again."""
        self._process.wait()
        self.up()
        self.wait_supervised()

    def down(self) -> None:
        """There is nothing to let go of."""
