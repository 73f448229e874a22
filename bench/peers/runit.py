"""runit: `runsvdir` with a `runsv` for each agent."""

import struct
import time
from collections.abc import Sequence

from typing_extensions import override

from bench.agents import Agent
from bench.peers.supervision import Supervision, debian_version

PID_AT = 12
"""Where the pid is in `supervise/status`, after a time stamp of 12 bytes, little-endian."""


class Runit(Supervision):
    """Services are there when runsvdir starts, as it looks for new ones only every few seconds."""

    name = "runit"
    notes = "runsvdir is started over the prepared services; sv -w 2 force-stop"
    programs = frozenset(("runsvdir", "runsv"))

    def version(self) -> str:
        """Return the package's."""
        return debian_version("runit", self.ground.run(["dpkg-query", "-Wf${Version}", "runit"]))

    def up(self) -> None:
        """Leave it to `launch`."""

    @override
    def prepare(self, agents: Sequence[Agent]) -> None:
        """Link the services, too; runsvdir waits for a directory to be older than a second."""
        super().prepare(agents)
        self.publish()
        time.sleep(1.1)

    def launch(self) -> None:
        """Start runsvdir."""
        self._process = self.ground.start(["runsvdir", "-P", str(self.scan)])

    def status_command(self) -> list[str]:
        """Return sv's, which takes any number of services."""
        return ["sv", "status", *map(str, self.services)]

    def running(self) -> int:
        """Read the status files, which is what sv does."""
        running = 0
        for service in self.services:
            text = (service / "supervise" / "status").read_bytes()
            running += struct.unpack_from("<I", text, PID_AT)[0] != 0
        return running

    def stop(self, agent: Agent) -> None:
        """Bring one down, by force after the grace."""
        self.ground.run(["sv", "-w", "2", "force-stop", str(self.scan / agent.name)])

    def stop_all(self) -> None:
        """Bring all down with one command, which does not fail for those it had to force."""
        services = " ".join(map(str, self.services))
        self.ground.run(["sh", "-c", f"sv -w 2 force-stop {services} || [ $? -lt 100 ]"])

    def restart(self) -> None:
        """Start runsvdir again."""
        self._process.wait()
        self._process = self.ground.start(["runsvdir", "-P", str(self.scan)])
        self.wait_supervised()

    def down(self) -> None:
        """There is nothing to let go of."""
