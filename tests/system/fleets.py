"""Fifty agents whose daemon ends, again and again, and what must be the same with the next one."""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
)
from functools import partial
from pathlib import Path
from typing import Any

from factoryd.adapters.proc import read_stat
from factoryd.adapters.sqlite_store import LEDGER, SqliteStore
from factoryd.core.events import (
    AttemptEnded,
    AttemptStarted,
    DaemonStarted,
    Fact,
    Recorded,
    RunExited,
    RunStarting,
    kind_of,
)
from factoryd.core.records import same_issue
from tests.groups import list_pids_below
from tests.system.daemons import Daemon, Place, configuration, eventually, is_started

OWNED_WITHIN_S = 3.0
OWNED_WITHIN_CPU_S = 1.0
"""How long a daemon may take to own fifty agents, on any machine: time, and time on a processor."""

TRIES = 3
"""How often a daemon may end until the next one is quick; they end more often than that."""

HOUR_S = 3600.0

FIFTY = [f"A-{n}" for n in range(10, 60)]
COOLING = "C-1"
SECTIONS = {
    "factory": "slots = 60",
    "dispatch": 'error_cooldown = "5m"',
    "resume": 'max_resumes = 1\ndelay = "10ms"',
    "output": "journal = true\njournal_rate = 0",
}

ENDS = {
    "A-10": ("exit:0", 0, "done"),
    "A-11": ("exit:3", 3, "parked"),
    "A-12": ("exit:10", 10, "parked"),
    "A-13": ("exit:75", 75, "cooldown"),
    "A-14": ("die:TERM", 143, "parked"),
    "A-15": ("die:KILL", 137, "parked"),
    "A-16": ("die:SEGV", 139, "parked"),
    "A-17": ("exit:4", 4, "parked"),
}
"""Agents that end while no daemon is there: how, as which status, and what the issue is then."""

SPENT = ("A-11", "A-12", "A-14", "A-15", "A-16")
"""Those of them that have used up their resumes before; A-17 has not."""

KILLED = [f"A-{n}" for n in range(20, 30)]


End = Callable[[Daemon], AbstractAsyncContextManager[None]]
"""How daemons end: each before the next one is started, which happens inside."""


# ----------------------------------------------------------------------------------------- agents


def counting(key: str, end: str = "exit:0") -> str:
    """Return a script that prints numbered lines until its issue's file is there, and ends."""
    return f"exec $PYTHON -IS $AGENT count:../go-{key} {end}"


def let_end(place: Place, *keys: str) -> None:
    """Let agents that count come to their ends."""
    for key in keys:
        (place.root / f"go-{key}").touch()


def processes(place: Place) -> dict[int, int]:
    """Return every process of every agent, with the moment it began."""
    stats = map(read_stat, list_pids_below(place.cgroup / "agents"))
    return {stat.pid: stat.start_ticks for stat in stats if stat is not None}


# ------------------------------------------------------------------------------------------ facts


def facts_of(place: Place) -> list[Recorded]:
    """Return every fact that is in the ledger."""
    store = SqliteStore(place.state / LEDGER, read_only=True)
    try:
        return store.read_facts(0, 100_000, None)
    finally:
        store.close()


def of_kind(place: Place, kind: type) -> list[Any]:
    """Return every fact of a kind, as recorded."""
    return [one for one in facts_of(place) if isinstance(one.fact, kind)]


def backdate(place: Place, kind: type[Fact], by_s: float, *keys: str) -> None:
    """Have facts of these issues be older in a dead daemon's ledger; the next one reads them all."""
    with closing(sqlite3.connect(place.state / LEDGER)) as database, database:
        for key in keys:
            database.execute(
                "UPDATE fact SET at = at - ? WHERE kind = ? AND issue = ?",
                (by_s, kind_of(kind), same_issue(key)),
            )
        database.execute("DELETE FROM snapshot")


# ---------------------------------------------------------------------------------------- daemons


def lasting(status: dict[str, Any], keys: Collection[str] | None = None) -> dict[str, Any]:
    """Return what a daemon's end must not change, by issue."""
    issue_names = ("state", "attempt", "round", "stage", "since", "not_before", "reason")
    names = ("name", "role", "run", "pid", "resumes", "session", "started_at", "state", "exit")
    return {
        issue["key"]: (
            [issue[name] for name in issue_names],
            [[agent[name] for name in names] for agent in issue["agents"]],
        )
        for issue in status["issues"]
        if keys is None or issue["key"] in keys
    }


async def owns(daemon: Daemon, keys: Collection[str]) -> bool:
    """Say whether `Status` shows the daemon to have these issues' agents in hand.

    Only of these it can tell the usage, which it reads once a second at most.
    """
    issues = [one for one in (await daemon.status())["issues"] if one["key"] in keys]
    agents = [agent for issue in issues for agent in issue["agents"]]
    return len(agents) == len(keys) and all(one["pid"] and one["processes"] for one in agents)


def followed(place: Place) -> set[tuple[Path, int]]:
    """Return when the output of each run was last passed on."""
    return {(path, path.stat().st_mtime_ns) for path in place.state.glob("runs/*/*/followed")}


def count_behind(place: Place) -> int:
    """Return how many runs have printed what was not passed on yet."""
    count = 0
    for output in place.state.glob("runs/*/*/output"):
        noted = output.with_name("followed")
        passed_on = int(noted.read_text() or 0) if noted.exists() else 0
        count += output.stat().st_size > passed_on
    return count


@asynccontextmanager
async def next_daemon(
    place: Place, keys: Collection[str], **environment: str
) -> AsyncIterator[Daemon]:
    """Run a daemon; yields it once the agents of these issues, all of which print, are its own."""
    before = followed(place)
    async with place.daemon(**environment) as daemon:
        await place.wait_for(lambda: len(followed(place) - before) >= len(keys))
        assert (await daemon.status())["daemon"]["adopted_runs"] == len(keys)
        await eventually(partial(owns, daemon, keys))
        yield daemon


# ----------------------------------------------------------------------------------------- output

FORWARDING = """
import contextlib, json, os, pathlib, signal, sys, time
from factoryd import __main__ as program

def waited_s():
    waited_ns = 0
    for thread in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            waited_ns += int((thread / "schedstat").read_text().split()[1])
    return waited_ns / 1e9

class FileJournal:
    is_behind, is_even = False, True
    def __init__(self, path, most):
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.first = os.open(path + "-first", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.left = most
        self.runs = set()
    def send(self, fields):
        sys.stderr.write(fields["MESSAGE"] + chr(10))
    def catch_up(self):
        pass
    def offer(self, fields):
        names = ("FACTORY_RUN", "FACTORY_OFFSET", "MESSAGE")
        os.write(self.file, json.dumps([fields[name] for name in names]).encode() + bytes([10]))
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if fields["FACTORY_RUN"] not in self.runs:
            self.runs.add(fields["FACTORY_RUN"])
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            first = [os.getpid(), fields["FACTORY_ISSUE"], now, waited_s(), time.process_time()]
            os.write(self.first, json.dumps(first).encode() + bytes([10]))

path, most, *arguments = sys.argv[1:]
program.connect_journal = lambda environ: FileJournal(path, int(most))
sys.exit(program.main(arguments))
"""
"""A daemon whose journal is a file; it is killed at once when so many lines of agents are in it.

Beside it is noted, at each run's first line, when that was, how long the daemon's threads could
have run by then and had no CPU (sched-stats.rst), and what CPU time it has used.
"""


def forward(place: Place, most: int = 0) -> None:
    """Have daemons that are started from now on forward what agents print to a file."""
    place.program = ("-c", FORWARDING, str(place.root / "journal"), str(most))


def took(daemon: Daemon, keys: Collection[str]) -> tuple[float, float]:
    """Return how long a daemon took to pass on a line of each of these issues' agents (seconds).

    By its own account, from its process's start: the time less what it waited for a CPU that others
    had, and the CPU time.
    """
    lines = (daemon.place.root / "journal-first").read_text().splitlines()
    mine = [rest for pid, *rest in map(json.loads, lines) if pid == daemon.pid]
    assert {key for key, *_ in mine} >= set(keys)
    _, now, waited_s, cpu_s = max((one for one in mine if one[0] in keys), key=lambda one: one[1])
    stat = read_stat(daemon.pid)
    assert stat is not None
    return now - stat.start_ticks / os.sysconf("SC_CLK_TCK") - waited_s, cpu_s


def check_forwarded(place: Place, *keys: str) -> int:
    """See that every line came, each at its offset; return how many came more than once."""
    lines = (place.root / "journal").read_text().splitlines()
    forwarded: dict[str, list[tuple[int, str]]] = {}
    for run, offset, text in map(json.loads, lines):
        forwarded.setdefault(run, []).append((offset, text))
    repeated = 0
    for key in keys:
        for directory in (place.state / "runs" / key).iterdir():
            mine = forwarded.get(directory.name, [])
            repeated += len(mine) - len(set(mine))
            expected, end = [], 0
            for line in (directory / "output").read_bytes().splitlines(keepends=True):
                end += len(line)
                expected.append((end, line.decode().rstrip("\n")))
            assert sorted(set(mine)) == expected, directory
    return repeated


# ------------------------------------------------------------------------------------------ fifty


async def check_fifty_notice_nothing(place: Place, end: End, **environment: str) -> int:
    """Have the daemons of fifty agents end, and see that each next one owns them as they were.

    The daemons have this environment and the place has `SECTIONS`. Returns how many lines of agents were passed on more than once.
    """
    forward(place)
    async with AsyncExitStack() as daemons:
        daemon = await daemons.enter_async_context(place.daemon(**environment))
        before = await start_fifty(daemon)
        alive = processes(place)
        assert len(alive) == 2 * len(FIFTY)

        times: list[tuple[float, float]] = []
        while len(times) < TRIES and not any(map(is_quick, times)):
            async with end(daemon):
                # So that the next one waits for none of them.
                await place.wait_for(lambda: count_behind(place) >= len(FIFTY))
                following = next_daemon(place, FIFTY, **environment)
                daemon = await daemons.enter_async_context(following)
            times.append(took(daemon, FIFTY))
            assert lasting(await daemon.status(), before) == before
            assert processes(place) == alive
        assert any(map(is_quick, times)), times

        async with end(daemon):
            await end_some_unseen(place, before)
            daemon = await daemons.enter_async_context(place.daemon(**environment))
        await check_ended(daemon)
        await kill_some(daemon)
        left = set(FIFTY) - set(ENDS) - set(KILLED)
        async with end(daemon):
            limit = {"dispatch": f'{SECTIONS["dispatch"]}\ntime_limit = "30m"'}
            place.config.write_text(configuration(**SECTIONS | limit))
            backdate(place, AttemptStarted, HOUR_S, *left)
            daemon = await daemons.enter_async_context(place.daemon())
        await check_deadlines(daemon, left)
    check_starts(place)
    return check_forwarded(place, *FIFTY, COOLING)


def is_quick(took_s: tuple[float, float]) -> bool:
    """Say whether a daemon took as little as it may."""
    wall_s, cpu_s = took_s
    return wall_s <= OWNED_WITHIN_S and cpu_s <= OWNED_WITHIN_CPU_S


async def start_fifty(daemon: Daemon) -> dict[str, Any]:
    """Have fifty agents run, some for the second time, and an issue cool down; return `lasting`."""
    place = daemon.place
    place.put(COOLING, "exit 75")
    for key in FIFTY:
        end = counting(key, ENDS[key][0] if key in ENDS else "exit:0")
        once = f"[ -e ../spent-{key} ] || {{ touch ../spent-{key}; exit 3; }}\n"
        place.put(key, once + end if key in SPENT else end)
    await daemon.wait_issue(COOLING, "cooldown")
    for key in FIFTY:
        ready = partial(is_started_anew if key in SPENT else is_started)
        (agent,) = (await daemon.wait_issue(key, "running", when=ready))["agents"]
        await place.wait_for(partial(is_counting, place, key, agent))
    return lasting(await daemon.status())


def is_started_anew(issue: dict[str, Any]) -> bool:
    """Say whether an issue's agent has a process, not its first."""
    return is_started(issue) and issue["agents"][0]["resumes"] == 1


def is_counting(place: Place, key: str, agent: dict[str, Any]) -> bool:
    """Say whether a run has printed a few lines."""
    path = place.state / "runs" / key / agent["run"] / "output"
    return path.exists() and b"line 3" in path.read_bytes()


async def end_some_unseen(place: Place, before: dict[str, Any]) -> None:
    """Let agents end; return when their shims have written down how."""
    let_end(place, *ENDS)
    for key in ENDS:
        ((_, _, run, *_),) = before[key][1]
        await place.wait_for((place.state / "runs" / key / run / "status").exists)


async def check_ended(daemon: Daemon) -> None:
    """See that each that has ended unseen has its status, and its issue went on from there."""
    for key, (_, _, state) in ENDS.items():
        await daemon.wait_issue(key, state)
    exits: dict[str, list[int | None]] = {}
    for one in of_kind(daemon.place, RunExited):
        exits.setdefault(one.fact.issue, []).append(one.fact.exit.status)
    expected = {key: [status] for key, (_, status, _) in ENDS.items()}
    expected |= {key: [3, ENDS[key][1]] for key in SPENT}
    assert {key: exits[key] for key in ENDS} == expected | {"A-17": [4, 4]}
    states = Counter(one["state"] for one in (await daemon.status())["issues"])
    assert states["running"] >= len(FIFTY) - len(ENDS)


async def kill_some(daemon: Daemon) -> None:
    """Kill agents that were taken over, by their issues and by their names."""
    by_name = [f"{key.lower()}-w" for key in KILLED[5:]]
    killed = (await daemon.call("Kill", targets=[*KILLED[:5], *by_name]))["agents"]
    assert {one["agent"]: (one["emptied"], one["survivors"]) for one in killed} == {
        f"{key.lower()}-w": (True, 0) for key in KILLED
    }


async def check_deadlines(daemon: Daemon, keys: set[str]) -> None:
    """See that attempts older than the limit are over at once: it counts from their start."""
    for key in keys:
        issue = await daemon.wait_issue(key, "parked")
        assert "time limit" in issue["reason"], issue
    restarted = of_kind(daemon.place, DaemonStarted)[-1].at
    ended = [one for one in of_kind(daemon.place, AttemptEnded) if one.at > restarted]
    assert {one.fact.issue for one in ended} >= keys


def check_starts(place: Place) -> None:
    """See that nothing was started that had been before."""
    starts = Counter(one.fact.issue for one in of_kind(place, RunStarting))
    twice = dict.fromkeys((*SPENT, "A-17"), 2)
    assert {key: starts[key] for key in (*FIFTY, COOLING)} == {
        **dict.fromkeys((*FIFTY, COOLING), 1),
        **twice,
    }
    assert set(starts.values()) == {1, 2}
