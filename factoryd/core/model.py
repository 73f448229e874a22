"""The nouns of factoryd: frozen data that every layer speaks in.

Inside the daemon a moment is a float of Unix seconds (UTC) and a duration is a float of seconds;
text forms exist only at the edges.
"""

from enum import StrEnum
from typing import NewType

import msgspec

RunId = NewType("RunId", str)


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all values: immutable, built by name, compared by content."""


class IssueState(StrEnum):
    """Where an issue is in its life; `lifecycle` holds the table of moves."""

    READY = "ready"
    CLAIMED = "claimed"
    RUNNING = "running"
    COOLDOWN = "cooldown"
    STOPPING = "stopping"
    DONE = "done"
    PARKED = "parked"
    CANCELLED = "cancelled"
    ESCALATED = "escalated"


class AgentState(StrEnum):
    """Where an agent's newest run is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LEAKED = "leaked"


class Containment(StrEnum):
    """How process trees are kept together."""

    CGROUP = "cgroup"
    SUBREAPER = "subreaper"


class Issue(Data, frozen=True, kw_only=True):
    """One unit of work as its source shows it.

    `ref` is the source's own handle (a file name), opaque to everyone else. `version` changes
    whenever the source's copy changes, so that a re-read can tell.
    """

    key: str
    title: str
    body: str = ""
    labels: tuple[str, ...] = ()
    priority: int | None = None
    team: str | None = None
    project: str | None = None
    url: str | None = None
    repo: str | None = None
    recipe: str | None = None
    source: str = ""
    ref: str = ""
    version: str = ""
    since: float = 0.0
    """Since when it has been waiting (Unix seconds), for first-come order."""


class Problem(Data, frozen=True, kw_only=True):
    """Something in a source that a person must mend: where it is and what is wrong."""

    where: str
    reason: str


class Listing(Data, frozen=True, kw_only=True):
    """What one look at a source showed: the ready issues, complete, and the unreadable rest.

    `copies` are keys that lie ready once more than they count: they have not left.
    """

    issues: tuple[Issue, ...] = ()
    problems: tuple[Problem, ...] = ()
    copies: tuple[str, ...] = ()


class OutcomeNote(Data, frozen=True, kw_only=True):
    """What is written back to an issue's source when its life here ends."""

    key: str
    state: IssueState
    reason: str | None
    attempts: int
    rounds: int
    ended_at: float


class ProcessIdentity(Data, frozen=True, kw_only=True):
    """A process for certain: pids are reused, this triple is not (proc(5), `stat` field 22)."""

    pid: int
    start_ticks: int
    boot_id: str


class TreePlace(Data, frozen=True, kw_only=True):
    """Where a run's tree lives, known before the first process of it exists.

    `directory` holds the run's own files (`output`, `status`); `cgroup` is the absolute path of
    its leaf, None where containment is by subreaper.
    """

    run: RunId
    issue: str
    agent: str
    directory: str
    cgroup: str | None = None


class Command(Data, frozen=True, kw_only=True):
    """A complete program call: nothing is inherited and nothing is added later.

    `stdin` is a file to read from, None for /dev/null. `user` is the account to run as, None for
    the daemon's own.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    stdin: str | None = None
    user: str | None = None


class Exit(Data, frozen=True, kw_only=True):
    """How a run's root process ended.

    `status` is the shell's view (128 + n for a death by signal n); None when nobody can know,
    and then `reason` says why.
    """

    status: int | None
    reason: str | None = None


class StopOrder(StrEnum):
    """Which end of a tree hears the stop signal first."""

    CHILDREN_FIRST = "children-first"
    ROOT_FIRST = "root-first"


class StopPolicy(Data, frozen=True, kw_only=True):
    """How a tree is asked to stop before it is killed; the grace is the caller's cancel scope."""

    signal: str = "SIGTERM"
    order: StopOrder = StopOrder.CHILDREN_FIRST
    protected_pids: frozenset[int] = frozenset()
    protected_commands: frozenset[str] = frozenset()


class Skipped(Data, frozen=True, kw_only=True):
    """A process that was left alone, and why."""

    pid: int
    reason: str


class StopReport(Data, frozen=True, kw_only=True):
    """What emptying a tree took. `emptied` is proof (populated 0 and the leaf removed), not hope."""

    signals: tuple[str, ...] = ()
    killed: int = 0
    skipped: tuple[Skipped, ...] = ()
    survivors: int = 0
    emptied: bool = True
    took_s: float = 0.0


class Usage(Data, frozen=True, kw_only=True):
    """What a tree uses now. Unknown is None, never a guess."""

    processes: int | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None


class Receipt(Data, frozen=True, kw_only=True):
    """What a run used in all. Peaks are the highest values seen, at the moments someone looked."""

    wall_s: float
    cpu_s: float | None = None
    peak_processes: int | None = None
    peak_memory_bytes: int | None = None
