"""What the daemon needs from the world beside process trees, as Protocols."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from factoryd.core.events import Entry, Fact, Recorded
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.model import (
    Closed,
    Issue,
    Listing,
    OutcomeNote,
    RunId,
    TreePlace,
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

    async def find_closed(self, claimed: Sequence[Issue]) -> Sequence[Closed]:
        """Return which of these issues are neither ready nor claimed any more, and as what."""
        ...

    async def claim(self, issue: Issue) -> Issue | None:
        """Mark the issue as taken and return what `read` would now; taken already is no error."""
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

    def read_newest(self, kinds: Sequence[type[Fact]], before: int, limit: int) -> list[Recorded]:
        """Return up to `limit` facts of these kinds numbered below `before`, newest first."""
        ...

    def forget(self, issues: Sequence[str], up_to: int, daemon_before: float) -> None:
        """Drop facts up to number `up_to`: of these issues, and of daemons before a moment."""
        ...

    def close(self) -> None:
        """Close the database; what was committed stays."""
        ...


class Workspaces(Protocol):
    """Makes and keeps the directories agents work in."""

    async def prepare(self, issue: Issue, repo: str) -> str:
        """Return the absolute path of the issue's workspace, made now or kept from before.

        Raise `WorkspaceFailed` with the reason when it cannot be made.
        """
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
