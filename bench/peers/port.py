"""What a measurement asks of a supervisor."""

from collections.abc import Sequence
from typing import Protocol

from bench.agents import Agent
from bench.ground import Ground


class Cannot(Exception):
    """A supervisor has no such thing; the text says why."""


class Peer(Protocol):
    """A supervisor on a ground of its own, configured as its documentation tells for the task.

    Whoever makes one calls `up` first and `down` last; the ground ends whatever runs then.
    Times are the caller's to take: a method returns when the supervisor says that it is done.
    """

    name: str
    """As the tables have it."""

    notes: str
    """How it was configured, for the report."""

    def __init__(self, ground: Ground) -> None: ...

    def version(self) -> str:
        """Return the version that is measured."""
        ...

    def up(self) -> None:
        """Start the supervisor without any agent; return when it takes requests."""
        ...

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write what the next `launch` will start, so that only asking for it is left."""
        ...

    def launch(self) -> None:
        """Ask for what was prepared to be started; it may run only later."""
        ...

    def status_command(self) -> list[str]:
        """Return the command that prints the state of all agents."""
        ...

    def running(self) -> int:
        """Ask over an open connection, or what comes nearest, how many agents run."""
        ...

    def stop(self, agent: Agent) -> None:
        """Stop one agent, with a grace of two seconds before force."""
        ...

    def stop_all(self) -> None:
        """Stop all agents at once, with the same grace."""
        ...

    def supervisors(self) -> list[int]:
        """Return the processes that make up the supervisor, those of single agents included."""
        ...

    def restart(self) -> None:
        """Start the supervisor again after its processes were killed, as its service would be."""
        ...

    def down(self) -> None:
        """Let go of connections and of whatever is outside the ground."""
        ...
