"""What s6 and runit have in common: a process for each agent, and a directory for each."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from bench.agents import Agent, argv_of
from bench.ground import Ground


class Supervision:
    """A directory of services, each looked after by a process of its own."""

    programs: frozenset[str]
    """What the supervisor's processes are called."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.scan = ground.root / "scan"
        self.scan.mkdir()
        self.services: list[Path] = []
        self._prepared: list[Path] = []

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write their directories where nothing looks for them."""
        for agent, script in zip(agents, self.ground.put(agents), strict=True):
            service = self.ground.root / "services" / agent.name
            service.mkdir(parents=True)
            (service / "run").write_text(f"#!/bin/sh\nexec sh {script}\n")
            (service / "run").chmod(0o755)
            self.configure(service)
            self._prepared.append(service)

    def configure(self, service: Path) -> None:
        """Add what else a service's directory needs."""

    def publish(self) -> None:
        """Link what was prepared to where the supervisor looks."""
        for service in self._prepared:
            (self.scan / service.name).symlink_to(service)
        self.services += self._prepared
        self._prepared = []

    def supervisors(self) -> list[int]:
        """Return the process that looks at the directory, and those of the agents."""
        argvs = ((pid, argv_of(pid)) for pid in self.ground.pids())
        return [pid for pid, argv in argvs if argv and Path(argv[0]).name in self.programs]

    def wait_supervised(self) -> None:
        """Return once each service has its process again: status files outlive what wrote them."""
        until = time.monotonic() + 30
        while len(self.supervisors()) <= len(self.services):
            if time.monotonic() > until:
                raise TimeoutError("not all services are looked after")
            time.sleep(0.005)

    def control(self, service: Path, letter: bytes) -> None:
        """Write into the control pipe of a service, as the commands do."""
        pipe = os.open(service / "supervise" / "control", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(pipe, letter)
        finally:
            os.close(pipe)


def debian_version(package: str, said: str) -> str:
    """Return a package's version from what dpkg-query said."""
    return f"{package} {said.strip()}"
