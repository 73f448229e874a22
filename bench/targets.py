"""What factoryd is to reach, compared with what was measured."""

from bench.figures import Figure
from bench.results import Key, Results
from bench.work import crash, growing, idling, looking, output, starting, stopping, succession, tree

OURS = "factoryd"
BARE = "bare Popen"
START_TIMES = 2.5
SLOWER = ("systemd", "circus", "pm2", "supervisord")
STATUS_MS = {100: 1.0, 500: 3.0}
STOP_MS = {100: 100.0, 500: 250.0}
TREE_MS = 10.0
NEXT_MS = 10.0
IDLE_CPU = 0.1
IDLE_MB = 40.0
KNEE = 2.0
"""A start of ten times as many agents may cost each so many times as much."""

WHY_MISSED = {
    "start of": """\
The start keeps both cores busy, so what counts is CPU time: about 3.6 ms for each agent. Of these the
agent and its second process take 1.5, which is all there is in the bare loop; the shim that keeps its
exit status 0.9, the start of a shell and a fork; the daemon 1.1, for six facts, a control group, two
files and the launch; entering the group the rest. A daemon that only claims keeps one core busy: reading
500 issues and committing their claims takes 90 ms before the first agent starts, and the time counts
from the request.""",
    "next run": """\
About 9 ms of it pass in one system call, by which the shim enters the control group of the new run.
After a moment in which no process on the machine has changed its group, the kernel waits there for a
grace period of RCU: 5 to 13 ms in ten measurements, 0.15 ms where such moves follow one another. Runs
that follow at once are within the target (see "crash to the agent resumed"). systemd enters groups in
the same way. The kernel's remedy is to mount cgroup2 with `favordynmods`, which makes every fork dearer.""",
}
"""Why a figure misses its target, by how its name begins: measured with perf, strace and /proc/stat."""


def is_explained(figure: Figure) -> bool:
    """Say whether a figure meets its target, or the report says why it does not."""
    return figure.met or figure.name.startswith(tuple(WHY_MISSED))


def figures(results: Results) -> list[Figure]:
    """Return factoryd's figures that have a target; what was not measured is left out."""
    found = [*_counts(results), *_starts(results), *_bounded(results), *_growth(results)]
    return [one for one in found if one is not None]


def _counts(results: Results) -> list[Figure | None]:
    kinds = [
        (tree.WORK, tree.SURVIVORS),
        (stopping.WORK, stopping.SURVIVORS),
        (crash.WORK, crash.LOST),
        (crash.WORK, crash.DUPLICATED),
        (crash.WORK, crash.ORPHANED),
        (output.WORK, output.LOST),
    ]
    return [
        Figure(
            name=f"{work}: {figure}, of {_times(results, work, figure)} measurements",
            value=(value := results.total(work, figure, OURS)),
            target="0",
            met=value == 0,
        )
        for work, figure in kinds
    ]


def _times(results: Results, work: str, figure: str) -> int:
    kinds = (
        key for key in results.samples if (key.work, key.figure, key.peer) == (work, figure, OURS)
    )
    return sum(len(results.samples[key]) for key in kinds)


def _starts(results: Results) -> list[Figure | None]:
    found: list[Figure | None] = []
    for count in sorted({key.agents for key in results.samples if key.work == starting.WORK}):
        ours, bare = (
            results.median(Key(starting.WORK, starting.PER_AGENT, name, count))
            for name in (OURS, BARE)
        )
        if ours is None or bare is None:
            continue
        found.append(
            Figure(
                name=f"start of {count}, per agent (ms)",
                value=ours,
                baseline=bare,
                target=f"at most {START_TIMES} times {BARE}",
                met=ours <= START_TIMES * bare,
            )
        )
        found += [_ahead(results, name, count, ours) for name in SLOWER]
    return found


def _ahead(results: Results, name: str, count: int, ours: float) -> Figure | None:
    theirs = results.median(Key(starting.WORK, starting.PER_AGENT, name, count))
    if theirs is None:
        return None
    return Figure(
        name=f"start of {count}, against {name} (ms)",
        value=ours,
        baseline=theirs,
        target=f"ahead of {name}",
        met=ours < theirs,
    )


def _bounded(results: Results) -> list[Figure | None]:
    def one(work: str, figure: str, agents: int, at_most: float) -> Figure | None:
        value = results.median(Key(work, figure, OURS, agents))
        if value is None:
            return None
        return Figure(
            name=f"{work}, {agents} agents: {figure}",
            value=value,
            target=f"at most {at_most:g}",
            met=value <= at_most,
        )

    return [
        *(one(looking.WORK, looking.BY_API, count, ms) for count, ms in STATUS_MS.items()),
        one(tree.WORK, tree.TOOK, 1, TREE_MS),
        *(one(stopping.WORK, stopping.TOOK, count, ms) for count, ms in STOP_MS.items()),
        one(succession.WORK, succession.TOOK, 1, NEXT_MS),
        one(idling.WORK, idling.CPU, 100, IDLE_CPU),
        one(idling.WORK, idling.PSS, 100, IDLE_MB),
    ]


def _growth(results: Results) -> list[Figure | None]:
    few, many = (results.median(Key(growing.WORK, growing.START, OURS, n)) for n in (100, 1000))
    if few is None or many is None:
        return [None]
    return [
        Figure(
            name="growth: start of 1,000 agents, per agent (ms)",
            value=many / 1000,
            baseline=few / 100,
            target=f"no knee: at most {KNEE:g} times that of 100",
            met=many / 1000 <= KNEE * few / 100,
        )
    ]
