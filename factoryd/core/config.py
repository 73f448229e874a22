"""What the configuration holds: one struct per section, its defaults, bounds and meanings.

A duration is a float of seconds in here and text (`"30s"`) in the file; a size is an int of bytes
in here and text (`"2G"`) in the file. `config_parse` reads the file's form, `config_check` holds
the rules that concern several keys.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from factoryd.core.model import Data, StopOrder

HOUR = 3600.0
DAY = 24 * HOUR
YEAR = 365 * DAY

Seconds = Annotated[float, Meta(extra={"form": "duration"})]
Bytes = Annotated[int, Meta(ge=1 << 20, le=1 << 50, extra={"form": "size"})]
Text = Annotated[str, Meta(min_length=1)]
Identifier = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z",
        title="a name of letters, digits and . _ - that begins with a letter or digit, 1 to 64 long",
    ),
]
AgentName = Annotated[
    str,
    Meta(
        pattern=r"\A([a-z0-9][a-z0-9-]{0,30})?\Z",
        title="a name of a-z, 0-9 and - that begins with a letter or digit, 1 to 31 long",
    ),
]
EnvName = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z_][A-Za-z0-9_]*\Z",
        title="a variable's name of letters, digits and _ that does not begin with a digit",
    ),
]
Principal = Annotated[
    str, Meta(pattern=r"\A@?[^\s@:,/]+\Z", title="a user's name, or a group's as \"@group\"")
]
ProgramName = Annotated[
    str, Meta(pattern=r"\A[^/]+\Z", title="the name of a program, without a path")
]


class FactoryConfig(Data, frozen=True, kw_only=True):
    """[factory]: the daemon as a whole."""

    slots: Annotated[int, Meta(ge=1, le=1000, description="Issues in flight at once.")] = 5
    poll_interval: Annotated[
        Seconds,
        Meta(
            ge=0.01,
            le=DAY,
            description="How often sources are asked. Those that can tell a change at once "
            "(folder) do so regardless.",
        ),
    ] = 30.0
    containment: Annotated[
        Literal["auto", "cgroup", "subreaper"],
        Meta(
            description="How process trees are kept together; auto: cgroup v2 where one can be "
            "made, else subreaper."
        ),
    ] = "auto"


class DispatchConfig(Data, frozen=True, kw_only=True):
    """[dispatch]: attempts at an issue and the waits between them."""

    max_attempts: Annotated[
        int, Meta(ge=1, le=20, description="Attempts at an issue before it is parked.")
    ] = 2
    error_cooldown: Annotated[
        Seconds, Meta(ge=0, le=7 * DAY, description="Wait after the first failed attempt.")
    ] = 60.0
    backoff_factor: Annotated[
        float, Meta(ge=1, le=100, description="Each further wait is so many times the last one.")
    ] = 2.0
    max_backoff: Annotated[
        Seconds, Meta(ge=0, le=7 * DAY, description="No wait is longer than this.")
    ] = 300.0
    time_limit: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=YEAR,
            description='Longest an attempt may take, frozen or not; "0s": no limit.',
        ),
    ] = 4 * HOUR


class ResumeConfig(Data, frozen=True, kw_only=True):
    """[resume]: agents that ended before their work did."""

    max_resumes: Annotated[
        int, Meta(ge=0, le=100, description="Resumes of one agent in one attempt.")
    ] = 3
    delay: Annotated[Seconds, Meta(ge=0, le=DAY, description="Wait before a resume.")] = 1.0


class StopConfig(Data, frozen=True, kw_only=True):
    """[stop]: how agents are asked to end before they are killed."""

    signal: Annotated[
        Text, Meta(description="Sent first, by its name; not SIGKILL, which comes anyway.")
    ] = "SIGTERM"
    grace: Annotated[
        Seconds,
        Meta(ge=0, le=HOUR, description="Waited once for everything that is stopped together."),
    ] = 10.0
    order: Annotated[StopOrder, Meta(description="Which end of a tree hears the signal first.")] = (
        StopOrder.CHILDREN_FIRST
    )


class SafetyConfig(Data, frozen=True, kw_only=True):
    """[safety]: the scope gate. An issue must pass every line that is set."""

    require_label: Annotated[
        str, Meta(description='The issue has this label, in any case; "" disables.')
    ] = "factory"
    require_title_prefix: Annotated[
        str,
        Meta(
            description='The title is exactly this, or begins with this and one space; "" disables.'
        ),
    ] = ""
    require_team: Annotated[
        str,
        Meta(description='The issue\'s team; an issue without a team passes; "" disables.'),
    ] = ""


class ProtectConfig(Data, frozen=True, kw_only=True):
    """[protect]: processes that are never signalled, nor their children walked."""

    pids: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=1 << 22)], ...], Meta(description="By process id.")
    ] = ()
    commands: Annotated[
        tuple[ProgramName, ...], Meta(description="By the exact name of the program.")
    ] = ()


class HeartbeatConfig(Data, frozen=True, kw_only=True):
    """[heartbeat]: the file that tells from outside whether the daemon lives."""

    interval: Annotated[
        Seconds,
        Meta(
            ge=0.01,
            le=HOUR,
            description="How often it is written; never more rarely than a quarter of stale_after.",
        ),
    ] = 15.0
    stale_after: Annotated[
        Seconds, Meta(ge=0.1, le=DAY, description="A daemon silent for longer counts as hung.")
    ] = 60.0


class ReaperConfig(Data, frozen=True, kw_only=True):
    """[reaper]: what empties process trees that nobody owns."""

    interval: Annotated[
        Seconds,
        Meta(
            ge=0.05,
            le=DAY,
            description="How often it looks for them, and the longest it waits before it tries "
            "again to empty one that it could not.",
        ),
    ] = 60.0


class OutputConfig(Data, frozen=True, kw_only=True):
    """[output]: what agents print."""

    max_bytes_per_run: Annotated[
        int,
        Meta(ge=4096, le=1 << 40, description="Bytes kept per run; beyond it the oldest go."),
    ] = 67_108_864
    max_line_bytes: Annotated[
        int, Meta(ge=64, le=1 << 30, description="Longer lines are cut and marked, in bytes.")
    ] = 10_485_760
    journal: Annotated[
        bool, Meta(description="Forward agent output to journald when there is one.")
    ] = True
    journal_rate: Annotated[
        int,
        Meta(ge=0, le=1_000_000, description="Lines of a run forwarded in 30 s; 0: no limit."),
    ] = 1000


class AccessConfig(Data, frozen=True, kw_only=True):
    """[access]: who may talk to the daemon, besides root and its own user."""

    operators: Annotated[
        tuple[Principal, ...], Meta(description='Users, or groups as "@group": every verb.')
    ] = ("@factory-operators",)
    readers: Annotated[
        tuple[Principal, ...],
        Meta(description='Users, or groups as "@group": verbs that only read.'),
    ] = ("@factory-readers",)


class HistoryConfig(Data, frozen=True, kw_only=True):
    """[history]: finished issues."""

    keep: Annotated[
        Seconds, Meta(ge=0, le=10 * YEAR, description="How long a finished issue is kept.")
    ] = 720 * HOUR
    max_issues: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Finished issues kept, the newest ones.")
    ] = 10_000


class SourceConfig(Data, frozen=True, kw_only=True):
    """[[sources]]: a place that issues come from. There is at least one."""

    kind: Annotated[Literal["folder"], Meta(description="What sort of source it is.")]
    path: Annotated[
        Text, Meta(description="The folder, relative to the configuration file; it exists.")
    ]
    name: Annotated[
        str, Meta(description="What status and history call it; default: the path as written.")
    ] = ""


class RepoConfig(Data, frozen=True, kw_only=True):
    """[repos.NAME]: a repository that agents work on."""

    path: Annotated[
        str,
        Meta(
            description="The repository, relative to the configuration file; it exists. Not "
            'needed with workspace = "directory".'
        ),
    ] = ""
    workspace: Annotated[
        Literal["worktree", "directory", "none"],
        Meta(
            description="worktree: a git worktree on branch factory/KEY; directory: a fresh "
            "directory per issue in the state directory; none: agents run in `path` itself."
        ),
    ] = "worktree"


class RouteConfig(Data, frozen=True, kw_only=True):
    """[[routes]]: which repository and recipe an issue gets.

    Exactly one of label, project, team, keyword, default is given; routes are tried in that order
    of kinds, then in file order. An issue that none matches is escalated.
    """

    label: Annotated[Text | None, Meta(description="Matches a label of the issue.")] = None
    project: Annotated[Text | None, Meta(description="Matches the issue's project.")] = None
    team: Annotated[Text | None, Meta(description="Matches the issue's team.")] = None
    keyword: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1000)] | None,
        Meta(
            description="A regular expression (Python's), looked for in title and body: in their "
            "first 100,000 characters, or 2,000 where it has a `*` or `+` before its end. One that "
            "could take long is refused, as are look-arounds and references back."
        ),
    ] = None
    default: Annotated[bool, Meta(description="Matches every issue that nothing else did.")] = False
    repo: Annotated[Identifier, Meta(description="The NAME of a [repos.NAME].")]
    recipe: Annotated[Identifier, Meta(description="The NAME of a [recipes.NAME].")]


class RecipeConfig(Data, frozen=True, kw_only=True):
    """[recipes.NAME]: the stages of agents an issue runs through."""

    stages: Annotated[
        tuple[
            Annotated[
                tuple[Identifier, ...],
                Meta(min_length=1, max_length=100, title="a stage, a list of 1 to 100 agents"),
            ],
            ...,
        ],
        Meta(
            min_length=1,
            max_length=100,
            title="a list of 1 to 100 stages, each a list of 1 to 100 agents",
            description="Stages run in order; the agents of a stage run together. An agent is "
            "the NAME of an [agents.NAME].",
        ),
    ]
    max_rounds: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Passes through the stages; an agent that exits with 10 asks for another.",
        ),
    ] = 3
    on_failure: Annotated[
        Literal["cancel", "wait"],
        Meta(
            description="What an agent's failure means for the others of its stage: cancel them, "
            "or wait for them."
        ),
    ] = "cancel"


class AgentConfig(Data, frozen=True, kw_only=True):
    """[agents.NAME]: a program that works on issues."""

    kind: Annotated[Literal["command"], Meta(description="What sort of agent it is.")]
    name: Annotated[
        AgentName,
        Meta(description="Agents are named KEY-name, as in ar-255-impl; default: NAME itself."),
    ] = ""
    command: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            max_length=1000,
            description="Program and arguments, with placeholders. ./PROGRAM is looked for beside "
            "the configuration file, then in the workspace.",
        ),
    ]
    pass_env: Annotated[
        tuple[EnvName, ...],
        Meta(description="Variables passed on from the daemon's own environment."),
    ] = ("PATH", "HOME", "LANG")
    env: Annotated[
        dict[EnvName, str],
        Meta(description="Variables set for the agent; they win over pass_env."),
    ] = msgspec.field(default_factory=dict[str, str])
    stall_after: Annotated[
        Seconds,
        Meta(
            ge=0,
            le=YEAR,
            description='Without output and CPU use for so long it is stalled; "0s": never.',
        ),
    ] = 0.0
    memory_max: Annotated[
        Bytes | None,
        Meta(
            description="Memory the agent's tree may use, where the memory controller is "
            "delegated; elsewhere the private memory that each of its processes may map "
            '(RLIMIT_DATA); "": no limit.'
        ),
    ] = None
    pids_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 22,
            description="Processes and threads the agent's tree may have at once, its shim "
            "counted, where the pids controller is delegated; elsewhere how many its user, with "
            "all it runs, may have beyond those at the agent's start (RLIMIT_NPROC). That does not "
            "bind root: agents of a daemon that runs as root have no limit there; 0: no limit.",
        ),
    ] = 0
    cpu_weight: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="Share of CPU time under contention, where the cpu controller is "
            "delegated: everyone else has 100. Elsewhere a weight below 100 is a nice level of up "
            "to 19, and one above does nothing; 0: not set.",
        ),
    ] = 0


class Config(Data, frozen=True, kw_only=True):
    """A whole configuration: valid in itself, its paths not looked at."""

    factory: FactoryConfig = FactoryConfig()
    dispatch: DispatchConfig = DispatchConfig()
    resume: ResumeConfig = ResumeConfig()
    stop: StopConfig = StopConfig()
    safety: SafetyConfig = SafetyConfig()
    protect: ProtectConfig = ProtectConfig()
    heartbeat: HeartbeatConfig = HeartbeatConfig()
    reaper: ReaperConfig = ReaperConfig()
    output: OutputConfig = OutputConfig()
    access: AccessConfig = AccessConfig()
    history: HistoryConfig = HistoryConfig()
    sources: tuple[SourceConfig, ...] = ()
    repos: dict[Identifier, RepoConfig] = msgspec.field(default_factory=dict[str, RepoConfig])
    routes: tuple[RouteConfig, ...] = ()
    recipes: dict[Identifier, RecipeConfig] = msgspec.field(default_factory=dict[str, RecipeConfig])
    agents: dict[Identifier, AgentConfig] = msgspec.field(default_factory=dict[str, AgentConfig])
