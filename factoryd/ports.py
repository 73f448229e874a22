"""What the daemon needs from the world, as Protocols; adapters and fakes sit the same exams."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from factoryd.core.assignment import Assignment
from factoryd.core.events import Entry, Recorded
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.model import (
    Command,
    Containment,
    Exit,
    Issue,
    Listing,
    OutcomeNote,
    ProcessIdentity,
    RunId,
    StopPolicy,
    StopPreview,
    StopReport,
    TreePlace,
    Usage,
)


class Clock(Protocol):
    """The wall clock."""

    def now(self) -> float:
        """Return Unix seconds (UTC)."""
        ...

    def boottime(self) -> float:
        """Return seconds since the machine started, sleep included (CLOCK_BOOTTIME)."""
        ...


class IssueSource(Protocol):
    """A place issues come from. Every method may raise `SourceFailed`; the caller retries."""

    @property
    def name(self) -> str:
        """Return the name that status and facts know this source by; unique in a daemon."""
        ...

    @property
    def kind(self) -> str:
        """Return the `kind` of the configuration (`folder`)."""
        ...

    async def list_ready(self) -> Listing:
        """Return every issue that is ready now, each key once, and what could not be read."""
        ...

    async def wait_change(self) -> None:
        """Return once a listing may have changed since the newest `list_ready` began."""
        ...

    async def read(self, issue: Issue) -> Issue | None:
        """Return the issue as it is now, ready or claimed; None when it is gone."""
        ...

    async def claim(self, issue: Issue) -> Issue | None:
        """Mark the issue as taken, if it is not already, and return what `read` would now."""
        ...

    async def write_outcome(self, issue: Issue, note: OutcomeNote) -> None:
        """Write back how it ended. Writing the same outcome twice is no error."""
        ...

    async def reopen(self, issue: Issue) -> None:
        """Show an ended issue as ready again, as it was left; one that is ready stays so.

        Raise `SourceFailed`, too, when there is no such issue any more.
        """
        ...

    async def submit(self, name: str, text: str) -> str:
        """Put a new issue in and return its key; raise `BadUsage` when the text is not an issue.

        `name` is a hint for the handle, hostile until checked.
        """
        ...

    def close(self) -> None:
        """Let go of what looks for changes, until the next listing; closing twice is no error."""
        ...


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
        """Return how the root ended, as soon as it has; others of the tree may still run."""
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

        Cancelling ends the wait, which is how a grace ends; no process is proven gone by it.
        """
        ...

    async def kill(self, policy: StopPolicy) -> StopReport:
        """End what is left by force, prove that nothing is, and report on the whole stop.

        Bounded: gives up on processes that the kernel will not let die and says so. When the
        report says emptied, the leaf is removed and nothing of the tree exists any more.
        """
        ...

    def preview(self, policy: StopPolicy) -> StopPreview:
        """Return whom a stop would reach now, touching nobody; blocks, may raise `OSError`."""
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
        """Return the trees below our root that are of no known run; blocks, may raise `OSError`."""
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


class LedgerStore(Protocol):
    """Keeps facts durably, in order. Blocking: the ledger calls it in a thread, one call at a time."""

    def load(self) -> tuple[bytes | None, Iterable[Recorded]]:
        """Return the newest snapshot, if any, and the facts after it, oldest first."""
        ...

    def append(self, entries: Sequence[Entry]) -> list[Recorded]:
        """Commit all entries in one transaction and return them with their numbers.

        Raise `IllegalFact` when an entry takes a name that is held (nothing is committed), and
        `LedgerUnavailable` when the disk refuses (nothing is committed).
        """
        ...

    def save_snapshot(self, seq: int, body: bytes) -> None:
        """Keep a snapshot of the state after fact `seq`, and drop older snapshots."""
        ...

    def read_facts(self, since: int, limit: int, issue: str | None) -> list[Recorded]:
        """Return up to `limit` facts numbered above `since`, oldest first."""
        ...

    def forget(self, issues: Sequence[str], up_to: int, daemon_before: float) -> None:
        """Drop facts up to number `up_to`: of these issues, and of daemons before a moment."""
        ...

    def close(self) -> None:
        """Close the database; what was committed stays."""
        ...


class AgentKind(Protocol):
    """Knows one kind of agent program: how it is called."""

    def command(self, work: Assignment, run: RunId, session: str | None) -> Command:
        """Return the complete command of one run; `session` is what to resume, if anything."""
        ...


class Workspaces(Protocol):
    """Makes and keeps the directories agents work in."""

    async def prepare(self, issue: Issue, repo: str) -> str:
        """Return the absolute path of the workspace, made or kept; raise `WorkspaceFailed`."""
        ...

    async def release(self, issue: Issue, repo: str) -> str | None:
        """Remove the workspace if nothing would be lost; else keep it and return why."""
        ...


class Desk(Protocol):
    """The files of issues and runs in the state directory.

    What makes and notes is quick (small local files, nothing is flushed to disk); what reads output
    or removes blocks for longer and belongs into a thread.
    """

    def make_run_directory(self, key: str, run: RunId) -> str:
        """Return the absolute path of a new, private directory for a run's files."""
        ...

    def write_issue(self, issue: Issue) -> str:
        """Write the issue's text for its agents and return the absolute path."""
        ...

    def issue_path(self, key: str) -> str:
        """Return where `write_issue` keeps it."""
        ...

    def write_feedback(self, key: str, text: str) -> None:
        """Keep what a reviewer said for the next round."""
        ...

    def feedback_path(self, key: str) -> str:
        """Return where `write_feedback` keeps it."""
        ...

    def note_followed(self, place: TreePlace, offset: int) -> None:
        """Remember how far a run's output has been passed on."""
        ...

    def read_followed(self, place: TreePlace) -> int:
        """Return what `note_followed` noted last; 0 when nothing was."""
        ...

    def read_tail(self, place: TreePlace, lines: int) -> list[tuple[int, str]]:
        """Return the last lines of a run's output, each with the offset where it ends."""
        ...

    def read_from(
        self, place: TreePlace, offset: int, *, to_the_end: bool
    ) -> list[tuple[int, str]]:
        """Return the next whole lines of a run's output from `offset` on, a bounded part of them.

        With `to_the_end`, also a last line that nothing ends.
        """
        ...

    def find_run(self, key: str, run: RunId) -> TreePlace | None:
        """Return where a run of an issue keeps its files; None when there is no such run."""
        ...

    def forget(self, key: str) -> None:
        """Remove an issue's files and those of its runs."""
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


class Accounts(Protocol):
    """The machine's users and groups."""

    @property
    def own_uid(self) -> int:
        """Return the daemon's own user id."""
        ...

    def look_up(self, uid: int) -> tuple[str | None, frozenset[str]]:
        """Return a user's name, if it has one, and its groups' names. Blocking."""
        ...


class HeartbeatFile(Protocol):
    """Where the daemon's sign of life is kept for others to read."""

    def write(self, beat: Heartbeat) -> None:
        """Replace the heartbeat atomically. Blocking; raises `OSError`."""
        ...

    def remove(self) -> None:
        """Take the heartbeat away: nothing of the daemon is left. Blocking; raises `OSError`."""
        ...


class Notifier(Protocol):
    """The service manager above us."""

    watchdog_s: float
    """How long it waits for `alive` before it kills us; infinite when it does not."""

    def ready(self) -> None:
        """Say that the daemon serves."""
        ...

    def status(self, text: str) -> None:
        """Show one human line."""
        ...

    def reloading(self) -> None:
        """Say that the configuration is being read anew; `ready` says that this is over."""
        ...

    def stopping(self) -> None:
        """Say that the daemon has begun to stop."""
        ...

    def extend(self, seconds: float) -> None:
        """Ask for as many seconds more, from now on, for the start, reload or stop under way."""
        ...

    def alive(self) -> None:
        """Feed the watchdog."""
        ...
