"""systemd as PID 1 of a booted container, asked over D-Bus."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from bench.agents import Agent, argv_of
from bench.ground import Ground
from bench.peers.port import Cannot
from bench.words import Words
from tests.systemd.machines import Machine, a_machine

SUITE = "bookworm"

UNIT = """
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=sh {inside}/agents/agent-%i.sh
Restart=always
RestartSec=0
TimeoutStopSec=2
StandardOutput=null
"""

IN_FLIGHT = 100
"""The bus lets nobody wait for more than 128 replies."""

MANAGER = DBusAddress(
    "/org/freedesktop/systemd1",
    bus_name="org.freedesktop.systemd1",
    interface="org.freedesktop.systemd1.Manager",
)

_numbers = count(1)


class SystemdGround(Ground):
    """A ground in a machine, which is one for all."""

    def __init__(self, machine: Machine, root: Path, words: Words) -> None:
        inside = Path("/") / root.relative_to(machine.root)
        super().__init__(root, inside, machine.cgroups, words)
        self.machine = machine


@contextmanager
def booted() -> Iterator[Machine]:
    """Boot the machine in which systemd is measured."""
    with tempfile.TemporaryDirectory(prefix="fb-machine-") as name:
        with a_machine(SUITE, Path(name)) as machine:
            yield machine


@contextmanager
def a_systemd_ground(machine: Machine) -> Iterator[SystemdGround]:
    """Make a directory in the machine; agents that are left there when it ends are killed."""
    root = machine.root / "srv" / f"bench-{next(_numbers)}"
    root.mkdir()
    try:
        with Words(root / "words") as words:
            ground = SystemdGround(machine, root, words)
            try:
                yield ground
            finally:
                ground.end_agents()
    finally:
        shutil.rmtree(root)


class Systemd:
    """An instance of a template unit for each agent."""

    name = "systemd"
    notes = (
        f"PID 1 of a booted {SUITE}; KillMode=control-group (its default); TimeoutStopSec=2;"
        " RestartSec=0; commands pay for entering the container"
    )
    _instances: ClassVar = count(1)

    def __init__(self, ground: Ground) -> None:
        assert isinstance(ground, SystemdGround)
        self.ground = ground
        self._machine = ground.machine
        self._unit = f"agent{next(self._instances)}"
        self._numbers: list[int] = []
        self._prepared: list[int] = []

    def version(self) -> str:
        """Return systemd's."""
        return " ".join(self._machine.run("systemctl", "--version").split()[:2])

    def up(self) -> None:
        """Install the template and connect to the bus."""
        text = UNIT.format(inside=self.ground.inside)
        (self._machine.root / f"etc/systemd/system/{self._unit}@.service").write_text(text)
        path = self._machine.path("/run/dbus/system_bus_socket")
        self._bus: DBusConnection = open_dbus_connection(f"unix:path={path}")
        self._call("Reload")

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write the agents' files."""
        self.ground.put(agents)
        self._prepared = [agent.number for agent in agents]

    def launch(self) -> None:
        """Ask for the start of each."""
        self._numbers += self._prepared
        self._call_each("StartUnit", self._prepared)

    def status_command(self) -> list[str]:
        """Return systemctl's, run in the machine."""
        return [*self._machine.entering, "systemctl", "list-units", f"{self._unit}@*"]

    def running(self) -> int:
        """Ask for the units of the template."""
        (units,) = self._call("ListUnitsByPatterns", "asas", ([], [f"{self._unit}@*"]))
        return sum(unit[4] == "running" for unit in units)

    def stop(self, agent: Agent) -> None:
        """Ask for the stop of one, and wait until it is inactive."""
        self._call_each("StopUnit", [agent.number])
        self._wait_none([agent.number])

    def stop_all(self) -> None:
        """Ask for the stop of each, then wait for all."""
        self._call_each("StopUnit", self._numbers)
        self._wait_none(self._numbers)

    def supervisors(self) -> list[int]:
        """Return PID 1 of the machine."""
        inits = (self._machine.cgroups / "init.scope" / "cgroup.procs").read_text().split()
        return [int(pid) for pid in inits if Path(argv_of(int(pid))[0]).name in {"init", "systemd"}]

    def restart(self) -> None:
        """It cannot be killed to begin with."""
        raise Cannot("PID 1 cannot be killed but with its machine")

    def down(self) -> None:
        """Stop what runs and forget the template."""
        self.stop_all()
        self._bus.close()
        (self._machine.root / f"etc/systemd/system/{self._unit}@.service").unlink()

    def _wait_none(self, numbers: Sequence[int]) -> None:
        names = [f"{self._unit}@{number}.service" for number in numbers]
        while True:
            (units,) = self._call("ListUnitsByNames", "as", (names,))
            if all(unit[3] in {"inactive", "failed"} for unit in units):
                return

    def _call_each(self, method: str, numbers: Sequence[int]) -> None:
        """Call a method for each unit, many at a time."""
        to_call, waiting = list(reversed(numbers)), set[int]()
        while to_call or waiting:
            while to_call and len(waiting) < IN_FLIGHT:
                words = (f"{self._unit}@{to_call.pop()}.service", "replace")
                serial = next(self._bus.outgoing_serial)
                self._bus.send(new_method_call(MANAGER, method, "ss", words), serial=serial)
                waiting.add(serial)
            message = self._bus.receive(timeout=120)
            reply_to = message.header.fields.get(HeaderFields.reply_serial)
            if reply_to in waiting:
                assert message.header.message_type is MessageType.method_return, message.body
                waiting.remove(reply_to)

    def _call(
        self, method: str, signature: str | None = None, body: tuple[object, ...] = ()
    ) -> tuple[Any, ...]:
        call = new_method_call(MANAGER, method, signature, body)
        answer = self._bus.send_and_get_reply(call, timeout=120)
        assert answer.header.message_type is MessageType.method_return, answer.body
        values: tuple[Any, ...] = answer.body
        return values
