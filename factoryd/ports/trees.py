"""What the daemon needs to run agents: process trees, and the output that they leave."""

from collections.abc import Sequence
from typing import Protocol

from factoryd.core.assignment import Assignment
from factoryd.core.model import (
    Command,
    Containment,
    Exit,
    ProcessIdentity,
    RunId,
    StopPolicy,
    StopPreview,
    StopReport,
    TreePlace,
    Usage,
)


class Tree(Protocol):
    """One run's process tree: everything the run started, wherever it re-parented itself.

    Never blocks on the processes in it: they read and write files, not the daemon.
    """

    @property
    def place(self) -> TreePlace:
        """Return where the tree lives, with its leaf's inode where it has a leaf."""
        ...

    @property
    def identity(self) -> ProcessIdentity | None:
        """Return the root process (the shim); None when it was never started or is forgotten."""
        ...

    async def wait_exit(self) -> Exit:
        """Return how the root ended, as soon as it has; others of the tree may still run.

        Of a tree taken over from someone who had begun to stop it that is `stopped`, and at once.
        """
        ...

    async def freeze(self) -> None:
        """Stop every process of the tree where it is, until `thaw`; what it starts meanwhile cannot run either.

        Returns once all of it stands still, and goes on returning so after a restart of the daemon
        until `thaw`. One that the kernel does not let stop is waited for, which cancelling ends.
        """
        ...

    async def thaw(self) -> None:
        """Let the processes go on."""
        ...

    async def terminate(self, policy: StopPolicy) -> None:
        """Send the stop signal once to every process that may be signalled, return when empty.

        Cancelling ends the wait, which is how a grace ends: after the signal, unless it was over
        before this began. No process is proven gone by it.
        """
        ...

    async def kill(self, policy: StopPolicy) -> StopReport:
        """End what is left by force, prove that nothing is, and report on the whole stop.

        Bounded: gives up on processes that the kernel will not let die and says so. When the
        report says emptied, the leaf is removed and nothing of the tree exists any more.
        """
        ...

    def preview(self, policy: StopPolicy) -> StopPreview:
        """Return whom a stop would reach now; nobody is touched.

        Raises `OSError` when the processes cannot be listed. Blocking; call it in a thread.
        """
        ...

    def usage(self) -> Usage:
        """Return what the tree uses now, or used in all once it is proven empty.

        Blocks for reads of /proc and the kernel's log; call it in a thread.
        """
        ...

    def close(self) -> None:
        """Release descriptors; processes are left as they are."""
        ...


class FoundTrees(Protocol):
    """Takes over trees that exist, and finds those that nobody owns."""

    async def adopt(self, place: TreePlace, identity: ProcessIdentity | None) -> Tree:
        """Take over a tree that an earlier daemon started, in whatever state it is.

        A tree that has ended, or never began, is a tree all the same: its exit is known at once
        (from the status file, or as unknown with the reason) and killing it proves it empty. A
        leaf with another inode than `place.cgroup_inode` is not this run's: it stays as it is, the
        report says `leaf identity mismatch`, and so does the exit where no status is left.
        """
        ...

    def list_strays(self, known: frozenset[RunId]) -> Sequence[TreePlace]:
        """Return the trees that exist below our root and belong to no known run.

        Raises `OSError` when that cannot be told. Blocking; call it in a thread.
        """
        ...


class ProcessTrees(FoundTrees, Protocol):
    """Starts trees, takes over running ones and finds those that nobody owns."""

    @property
    def containment(self) -> Containment:
        """Return the containment in force."""
        ...

    @property
    def controllers(self) -> frozenset[str]:
        """Return which of memory, pids and cpu the kernel limits and counts for whole trees."""
        ...

    def place(self, issue: str, agent: str, run: RunId, directory: str) -> TreePlace:
        """Return where a run's tree will live; nothing is created."""
        ...

    async def start(self, place: TreePlace, command: Command) -> Tree:
        """Start a tree with `command` at its root; raise `CannotStart` and leave nothing behind.

        Standard output and error are appended to `directory/output`; `directory` exists.
        """
        ...

    def owns(self, pid: int) -> bool | None:
        """Say whether a process is inside any agent's tree; None when that cannot be told."""
        ...

    def close(self) -> None:
        """Remove what was made to hold trees, unless it holds one; trees stay as they are."""
        ...


class AgentKind(Protocol):
    """Knows one kind of agent program: how it is called."""

    def command(self, work: Assignment, run: RunId, session: str | None) -> Command:
        """Return the complete command of one run; `session` is what to resume, if anything."""
        ...


class OutputSink(Protocol):
    """Where an agent's output lines go besides their file."""

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        """Take one line; must not block and must not raise. `offset` is its place in the file."""
        ...


class OutputFollower(Protocol):
    """Reads what runs write, as they write it, and keeps their files within bounds."""

    async def follow(self, place: TreePlace, offset: int, progress: "Progress") -> None:
        """Read from `offset` until cancelled, line by line, reporting each read to `progress`."""
        ...

    async def drain(self, place: TreePlace, progress: "Progress") -> None:
        """Read the rest, after the last writer is gone."""
        ...


class Progress(Protocol):
    """Hears how far a run's output has been read."""

    @property
    def offset(self) -> int:
        """Return the position up to which lines have been passed on."""
        ...

    def advance(self, offset: int) -> None:
        """Note that everything before `offset` has been passed on."""
        ...
