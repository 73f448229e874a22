"""The daemon is gone, its agents are not: what the next one finds, and what it makes of that."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from signal import SIGABRT, SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest
import trio

from factoryd.adapters.proc import read_stat
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.events import (
    AttemptEnded,
    AttemptStarted,
    DaemonStarted,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarting,
)
from tests.conftest import empty
from tests.system.daemons import Daemon, a_place, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(120)]

FIFTY = [f"A-{n}" for n in range(10, 60)]
MANY = 'slots = 60\npoll_interval = "1s"'
WITHIN_A_SECOND_S = 1.0

ENDS = {
    "A-10": ("exit:0", 0),
    "A-11": ("exit:3", 3),
    "A-12": ("exit:10", 10),
    "A-13": ("exit:75", 75),
    "A-14": ("die:TERM", 143),
    "A-15": ("die:KILL", 137),
    "A-16": ("die:SEGV", 139),
}
"""How the agents of some issues end, and the status that a shell would give for it."""


def counting(key, end="exit:0"):
    """Return a script that prints numbered lines until its issue's file is there, and ends."""
    return f"exec $PYTHON -IS $AGENT count:../go-{key} {end}"


def let_end(place, *keys):
    for key in keys:
        (place.root / f"go-{key}").touch()


def processes(place):
    """Return every process of every agent, with the moment it began."""
    procs = place.cgroup.glob("agents/**/cgroup.procs")
    pids = [int(pid) for each in procs for pid in each.read_text().split()]
    return {stat.pid: stat.start_ticks for stat in map(read_stat, pids) if stat is not None}


def output(place, agent, key):
    return (place.state / "runs" / key / agent["run"] / "output").read_text()


def lasting(status):
    """Return what a daemon's death must not change, by issue."""
    names = ("name", "role", "run", "pid", "resumes", "session", "started_at", "state")
    return {
        issue["key"]: (
            [issue[name] for name in ("state", "attempt", "round", "stage", "since")],
            [[agent[name] for name in names] for agent in issue["agents"]],
        )
        for issue in status["issues"]
    }


def owned(status):
    """Return the issues whose agents the daemon has in hand: only of these it can tell the usage."""
    return [
        issue["key"]
        for issue in status["issues"]
        if issue["state"] == "running"
        and all(agent["pid"] and agent["processes"] for agent in issue["agents"])
    ]


async def kill(daemon):
    daemon.signal(SIGKILL)
    assert await daemon.wait() == -SIGKILL


def waited_for_cpu_s(pid):
    """Return how long a process's main thread could have run and had no CPU (sched-stats.rst)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def followed(place):
    """Return when the output of each run was last passed on."""
    return {path: path.stat().st_mtime_ns for path in place.state.glob("runs/*/*/followed")}


@asynccontextmanager
async def next_daemon(place, count):
    """Run a daemon; yields it, and the seconds until it had so many agents, which print, as its own.

    They count from before its process exists until `Status` has answered; the first to know is the
    output of each agent, as it is passed on again. Only waits for a CPU that others had are taken
    off, so that the answer is the same on a busy machine.
    """
    before = followed(place).items()
    began = trio.current_time()
    async with place.daemon() as daemon:
        await place.wait_for(lambda: len(followed(place).items() - before) == count)
        status = await daemon.status()
        took_s = trio.current_time() - began - waited_for_cpu_s(daemon.pid)
        assert len(owned(status)) == status["daemon"]["adopted_runs"] == count
        yield daemon, took_s


def facts_of(place):
    store = SqliteStore(place.state / "ledger.sqlite", read_only=True)
    try:
        return store.read_facts(0, 100_000, None)
    finally:
        store.close()


def of_kind(place, kind):
    return [one for one in facts_of(place) if isinstance(one.fact, kind)]


# ------------------------------------------------------------------------------------ fifty agents


async def test_fifty_agents_notice_nothing_of_their_daemons_deaths():
    """They are owned again within a second of the next daemon's start, the quickest of three."""
    with a_place(factory=MANY, dispatch='error_cooldown = "60s"') as place:
        async with place.daemon() as first:
            for key in FIFTY:
                place.put(key, counting(key, ENDS.get(key, ("exit:0",))[0]))
            for key in FIFTY:
                agent = (await first.wait_issue(key, "running", when=is_started))["agents"][0]
                await place.wait_for(partial(is_counting, place, key, agent))
            before, alive = await first.status(), processes(place)
            assert len(alive) == 2 * len(FIFTY)
            await kill(first)
        times = []
        for _ in range(3):
            async with next_daemon(place, len(FIFTY)) as (daemon, took_s):
                times.append(took_s)
                assert lasting(await daemon.status()) == lasting(before)
                assert processes(place) == alive
                await kill(daemon)
        assert min(times) <= WITHIN_A_SECOND_S, times

        let_end(place, *ENDS)
        runs = {issue["key"]: issue["agents"][0] for issue in before["issues"]}
        for key in ENDS:  # while nobody looks
            status = place.state / "runs" / key / runs[key]["run"] / "status"
            await place.wait_for(status.exists)
        async with place.daemon() as last:
            await eventually(lambda: has_noted(last, len(ENDS)))
            exits = {one.fact.issue: one.fact.exit.status for one in of_kind(place, RunExited)}
            assert exits == {key: status for key, (_, status) in ENDS.items()}
            states = {one["key"]: one["state"] for one in (await last.status())["issues"]}
            assert (states["A-10"], states["A-11"], states["A-13"]) == (
                "done",
                "parked",
                "cooldown",
            )
            assert Counter(states.values())["running"] == len(FIFTY) - len(ENDS)

            killed = (await last.call("Kill", targets=["A-20", "a-21-w"]))["agents"]
            assert {one["agent"]: one["emptied"] for one in killed} == {
                "a-20-w": True,
                "a-21-w": True,
            }
            killed = (await last.call("Kill", all=True))["agents"]
            assert [one for one in killed if not one["emptied"]] == []
            assert place.survivors() == []
        starts = Counter(one.fact.issue for one in of_kind(place, RunStarting))
        assert starts == dict.fromkeys(FIFTY, 1)
        for key, agent in runs.items():
            lines = output(place, agent, key).splitlines()
            assert lines == [f"line {number}" for number in range(len(lines))]


def is_counting(place, key, agent):
    path = place.state / "runs" / key / agent["run"] / "output"
    return path.exists() and b"line 3" in path.read_bytes()


def is_started(issue):
    return bool(issue["agents"]) and issue["agents"][0]["pid"] is not None


async def has_noted(daemon, count):
    facts = (await daemon.call("Events"))["facts"]
    settled = [fact for fact in facts if fact["kind"] == "attempt-ended"]
    return len(settled) == count


# ---------------------------------------------------------------------------------- hung daemons


@pytest.mark.parametrize(
    ("fault", "signals", "ends_by"),
    [
        (None, (SIGSTOP, SIGABRT, SIGCONT), SIGABRT),
        (None, (SIGSTOP, SIGABRT, SIGKILL), SIGKILL),
        ("hang:run-started:3", (SIGABRT,), SIGABRT),
        ("hang:run-started:3", (SIGTERM, SIGKILL), SIGKILL),
    ],
    ids=["stopped-abort", "stopped-kill", "hung-abort", "hung-kill"],
)
async def test_the_agents_of_a_hung_daemon_are_adopted_when_its_watchdog_has_killed_it(
    fault, signals, ends_by
):
    keys = ["A-1", "A-2", "A-3"]
    more = {} if fault is None else {"FACTORYD_FAULT": fault}
    with a_place() as place:
        async with place.daemon(**more) as first:
            for key in keys:
                place.put(key, counting(key))
            outputs = [place.state / "runs" / key for key in keys]
            await place.wait_for(lambda: all(has_printed(each) for each in outputs))
            if fault is not None:
                assert await is_hung(first)
            alive = processes(place)
            for number in signals:
                first.signal(number)
            assert await first.wait() == -ends_by
            assert processes(place) == alive
        async with next_daemon(place, len(keys)) as (second, _):
            assert processes(place) == alive
            let_end(place, *keys)
            for key in keys:
                await second.wait_issue(key, "done")
        assert len(of_kind(place, RunStarting)) == len(keys)


def has_printed(runs):
    return any(b"line 3" in path.read_bytes() for path in runs.glob("*/output"))


async def is_hung(daemon):
    with trio.move_on_after(0.5):
        await daemon.status()
        return False
    return True


# -------------------------------------------------------------------------- budgets and deadlines


async def test_a_resume_budget_is_not_renewed_by_the_daemons_death():
    budget = 'max_resumes = 2\ndelay = "10ms"'
    script = "if [ -e ../again ]; then exec $PYTHON -IS $AGENT count:../go-A-1 exit:4; fi\n"
    with a_place(resume=budget) as place:
        place.put("A-1", f"{script} touch ../again; exit 3")
        async with place.daemon() as first:
            agent = await second_run(first)
            assert agent["resumes"] == 1
            await kill(first)
        let_end(place, "A-1")
        await place.wait_for((place.state / "runs" / "A-1" / agent["run"] / "status").exists)
        async with place.daemon() as second:
            issue = await second.wait_issue("A-1", "parked")
            assert (issue["agents"][0]["exit"], issue["agents"][0]["resumes"]) == (4, 2)
        assert [one.fact.resumes for one in of_kind(place, RunStarting)] == [0, 1, 2]


async def second_run(daemon):
    issue = await daemon.wait_issue(
        "A-1", "running", when=lambda one: is_started(one) and one["agents"][0]["resumes"] == 1
    )
    return issue["agents"][0]


async def test_the_time_limit_of_an_attempt_counts_from_its_start_whoever_watches():
    limit_s, dead_until_s = 4.0, 2.5
    with a_place(dispatch=f'time_limit = "{limit_s:g}s"') as place:
        place.put("A-1", counting("A-1"))
        async with place.daemon() as first:
            await first.wait_issue("A-1", "running", when=is_started)
            await kill(first)
        began = of_kind(place, AttemptStarted)[0].at
        await trio.sleep(began + dead_until_s - datetime.now().astimezone().timestamp())
        async with place.daemon() as second:
            issue = await second.wait_issue("A-1", "parked")
            assert "time limit" in issue["reason"]
        ended, restarted = of_kind(place, AttemptEnded)[0].at, of_kind(place, DaemonStarted)[1].at
        assert restarted - began >= dead_until_s
        assert limit_s <= ended - began < restarted - began + limit_s


async def test_a_cooldown_goes_on_as_if_nothing_had_happened():
    with a_place(dispatch='error_cooldown = "60s"\nmax_attempts = 2') as place:
        place.put("A-1", "exit 1")
        async with place.daemon() as first:
            before = await first.wait_issue("A-1", "cooldown")
            await kill(first)
        async with place.daemon() as second:
            after = await second.wait_issue("A-1", "cooldown")
            assert after["not_before"] == before["not_before"] is not None
            assert (after["attempt"], after["reason"]) == (1, before["reason"])
            await second.call("Kill", targets=["A-1"])


# ----------------------------------------------------------------------------------------- output

FORWARDING = """
import json, os, signal, sys
from factoryd import __main__ as program

class FileJournal:
    is_behind = False
    def __init__(self, path, most):
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.left = most
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

path, most, *arguments = sys.argv[1:]
program.connect_journal = lambda environ: FileJournal(path, int(most))
sys.exit(program.main(arguments))
"""
"""A daemon whose journal is a file; it is killed at once when so many lines of agents are in it."""


@asynccontextmanager
async def forwarding(place, most=0, **environment):
    """Run a daemon that forwards what agents print to a file; what ends it is the test's affair."""
    journal = [str(place.root / "journal"), str(most)]
    arguments = place.command()[3:]
    with (place.root / "log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", FORWARDING, *journal, *arguments],
            env=place.environment(**environment),
            cwd=place.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Daemon(place, process)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()


def check_forwarded(place, *keys):
    """See that every line came, each at its offset; return how many came more than once."""
    forwarded = [json.loads(line) for line in (place.root / "journal").read_text().splitlines()]
    repeated = 0
    for key in keys:
        for directory in (place.state / "runs" / key).iterdir():
            mine = [(offset, text) for run, offset, text in forwarded if run == directory.name]
            repeated += len(mine) - len(set(mine))
            expected, end = [], 0
            for line in (directory / "output").read_bytes().splitlines(keepends=True):
                end += len(line)
                expected.append((end, line.decode().rstrip("\n")))
            assert sorted(set(mine)) == expected, directory
    return repeated


async def test_no_line_is_lost_and_one_that_is_repeated_has_the_same_offset():
    keys = ["A-1", "A-2", "A-3"]
    with a_place(output="journal = true") as place:
        for key in keys:
            place.put(key, counting(key))
        for most in (20, 1, 50):
            async with forwarding(place, most) as daemon:
                assert await daemon.wait() == -SIGKILL
        async with forwarding(place) as last:
            let_end(place, *keys)
            for key in keys:
                await last.wait_issue(key, "done")
            logs = [await last.call("Logs", target=key, lines=10_000) for key in keys]
            assert await last.stop() == 0
        assert check_forwarded(place, *keys) >= 3
        for key, log in zip(keys, logs, strict=True):
            assert len(log["lines"]) > 20
            check_log(place, key, log)


def check_log(place, key, log):
    lines = [line["text"] for line in log["lines"]]
    assert lines == [f"line {number}" for number in range(len(lines))], key
    offsets = [line["offset"] for line in log["lines"]]
    assert all(a < b for a, b in pairwise(offsets))


@pytest.mark.parametrize("kind", ["run-exited", "run-emptied"])
@pytest.mark.parametrize("act", ["die-before", "die-after"])
async def test_what_an_agent_prints_last_is_not_lost_wherever_the_daemon_dies(act, kind):
    with a_place(output="journal = true\njournal_rate = 0") as place:
        place.put("A-1", "seq 3000; sleep 0.05; seq 3000; printf unfinished")
        async with forwarding(place, FACTORYD_FAULT=f"{act}:{kind}") as first:
            assert await first.wait() == -SIGKILL
        async with forwarding(place) as second:
            await second.wait_issue("A-1", "done")
            assert await second.stop() == 0
        check_forwarded(place, "A-1")


# ----------------------------------------------------------------------------------------- reboot


@contextmanager
def innocents(count):
    """Run processes that have nothing to do with anything."""
    running = [subprocess.Popen(["sleep", "600"]) for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.wait()


def reboot(place, innocent):
    """Have every process of the agents gone, and every recorded one be of another boot.

    What has the pids of the agents now is a process that is none of ours, started at the same tick.
    """
    if place.cgroup.is_dir():
        empty(place.cgroup)
    stat = read_stat(innocent.pid)
    assert stat is not None
    with sqlite3.connect(place.state / "ledger.sqlite") as database:
        assert database.execute("SELECT count(*) FROM snapshot").fetchone() == (0,)
        rows = database.execute("SELECT seq, kind, body FROM fact").fetchall()
        for seq, kind, body in rows:
            fact = json.loads(body)
            if kind == "daemon-started":
                fact["boot_id"] = "another"
            if kind == "run-started":
                fact["identity"] = {
                    "pid": stat.pid,
                    "start_ticks": stat.start_ticks,
                    "boot_id": "another",
                }
            database.execute("UPDATE fact SET body = ? WHERE seq = ?", (json.dumps(fact), seq))
    database.close()


@pytest.mark.parametrize("containment", ["cgroup", "subreaper"])
@pytest.mark.parametrize(("resumes", "state"), [(0, "parked"), (1, "done")])
async def test_after_a_reboot_nothing_is_signalled_and_every_run_is_closed_as_lost(
    containment, resumes, state
):
    keys = ["A-1", "A-2", "A-3"]
    sections = {"factory": f'containment = "{containment}"', "resume": f"max_resumes = {resumes}"}
    with a_place(**sections) as place, innocents(1) as (innocent,):
        for key in keys:
            place.put(key, f"[ -e ../rebooted ] && exit 0; {counting(key)}")
        async with place.daemon() as first:
            agents = {key: (await first.wait_issue(key, when=is_started))["agents"] for key in keys}
            await kill(first)
        if containment == "subreaper":
            await end_by_themselves(place, agents)
        reboot(place, innocent)
        (place.root / "rebooted").touch()
        async with place.daemon() as second:
            for key in keys:
                await second.wait_issue(key, state)
            exits = [one.fact for one in of_kind(place, RunExited) if one.fact.exit.status is None]
            assert {one.run: one.exit.reason for one in exits} == {
                agent["run"]: "lost in reboot" for (agent,) in agents.values()
            }
            closed = [one.fact for one in of_kind(place, RunEmptied)]
            lost = [one for one in closed if one.result is RunResult.LOST]
            assert len(lost) == len(keys)
            for one in lost:
                assert (one.report.signals, one.report.killed, one.report.emptied) == ((), 0, True)
            assert len(of_kind(place, RunStarting)) == len(keys) * (1 + resumes)
        assert innocent.poll() is None


async def end_by_themselves(place, agents):
    """Have agents end and leave no trace of how: a reboot does not let a shim write."""
    let_end(place, *agents)
    for key, (agent,) in agents.items():
        status = place.state / "runs" / key / agent["run"] / "status"
        await place.wait_for(status.exists)
        status.unlink()
