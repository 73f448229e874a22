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


class Closed(Data, frozen=True, kw_only=True):
    """A claimed issue that its source shows neither as ready nor as claimed any more.

    `outcome` is what others ended it as; None for one that is nowhere, perhaps only for a moment.
    """

    key: str
    outcome: IssueState | None


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
    its leaf, None where containment is by subreaper. `cgroup_inode` is known once the leaf is made:
    a directory at that path with another inode is another leaf (kernfs never reuses one).
    """

    run: RunId
    issue: str
    agent: str
    directory: str
    cgroup: str | None = None
    cgroup_inode: int | None = None


class Limits(Data, frozen=True, kw_only=True):
    """What a run may use; None is without a limit.

    `memory_max_bytes` and `pids_max` (processes and threads, the shim among them) are for the whole
    tree where a controller holds them, else for what a resource limit can hold. `cpu_weight` is
    the share under contention, 100 being everybody else's.
    """

    memory_max_bytes: int | None = None
    pids_max: int | None = None
    cpu_weight: int | None = None


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
    limits: Limits = Limits()


class Exit(Data, frozen=True, kw_only=True):
    """How a run's root process ended.

    `status` is the shell's view (128 + n for a death by signal n); None when nobody can know,
    and then `reason` says why. `stopped`: its stop was begun by someone who did not live to
    finish it, so that how it ends, if it has, is not its own doing.
    """

    status: int | None
    reason: str | None = None
    stopped: bool = False


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


class Signalled(Data, frozen=True, kw_only=True):
    """A process that was signalled, and with what, in order; each signal is named once.

    What the kernel killed with its whole cgroup counts as `SIGKILL`. A process that was stopped got
    `SIGCONT` after the stop signal.
    """

    pid: int
    signals: tuple[str, ...]


class StopReport(Data, frozen=True, kw_only=True):
    """What emptying a tree took. `emptied` is proof (populated 0 and the leaf removed), not hope.

    `killed` counts those that ended, a few of them perhaps by themselves before their signal came;
    `signalled` names the others in the order in which they were reached first. A skip with pid 0
    is of the tree itself.
    """

    signals: tuple[str, ...] = ()
    killed: int = 0
    signalled: tuple[Signalled, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    survivors: int = 0
    emptied: bool = True
    took_s: float = 0.0


class Victim(Data, frozen=True, kw_only=True):
    """A process that the kernel killed for lack of memory, by the name and pid in its log.

    `machine`: all memory was used up, not what some limit allows.
    """

    name: str
    pid: int
    machine: bool = False


class OutOfMemory(Data, frozen=True, kw_only=True):
    """How often the kernel killed in a tree for lack of memory, and what its log says of it.

    `limit_bytes` is the tree's own limit, if it was that which ran out. `untold` is why the log
    names nobody, where it does not.
    """

    kills: int
    limit_bytes: int | None = None
    victims: tuple[Victim, ...] = ()
    untold: str | None = None


class StopPreview(Data, frozen=True, kw_only=True):
    """Whom stopping a tree would signal now, and whom it would leave alone."""

    pids: tuple[int, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class Usage(Data, frozen=True, kw_only=True):
    """What a tree uses now; of one proven empty also what it used in all, as the kernel tells it.

    Unknown is None, never a guess. `ended_at` is when its root left its status (Unix seconds).
    """

    processes: int | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None
    peak_processes: int | None = None
    peak_memory_bytes: int | None = None
    out_of_memory: OutOfMemory | None = None
    ended_at: float | None = None


class Receipt(Data, frozen=True, kw_only=True):
    """What a run used in all: CPU and wall time in seconds, the latter to the end of its root.

    Peaks are the kernel's where it keeps them, which count threads as processes and what is cached
    as memory; else the highest values seen, at the moments someone looked. `oom_kills` is how many
    of its processes the kernel killed for lack of memory, where the memory controller counts them.
    """

    wall_s: float
    cpu_s: float | None = None
    peak_processes: int | None = None
    peak_memory_bytes: int | None = None
    oom_kills: int = 0
