"""What keeps the processes of one tree together, be it a cgroup or what is found of them."""

from collections.abc import Collection
from typing import Protocol

from factoryd.adapters.proc import Stat
from factoryd.core.model import Usage, Victim


class Group(Protocol):
    """What keeps the processes of one tree together."""

    waits: bool
    """Whether a look at it can hang as long as one of its processes does."""

    def list_members(self) -> dict[int, Stat]:
        """Return every process in it that has not ended; `OSError` when that cannot be told."""
        ...

    def among(self, pids: Collection[int]) -> set[int]:
        """Say again, right before they get a signal, which of these processes are in it."""
        ...

    async def freeze(self) -> None:
        """Stop every process in it; return once all stand still."""
        ...

    def thaw(self) -> None:
        """Let its processes go on, and so act on signals; nothing to do where nothing is frozen."""
        ...

    def kill(self) -> bool:
        """Have all of it killed at once; False where that is not possible."""
        ...

    async def wait_empty(self) -> None:
        """Return once nothing is alive in it."""
        ...

    def remove(self) -> Usage:
        """Give it up and return what it used in all; `OSError` when something lives in it."""
        ...

    def find_victims(self) -> tuple[Victim, ...]:
        """Return whom the kernel killed in it, as its log says; `OSError` when that is hidden."""
        ...

    def measure(self) -> Usage:
        """Return what its processes use."""
        ...
