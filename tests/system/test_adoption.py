"""The daemon is gone, its agents are not: what the next one finds, and what it makes of that."""

import json
import sqlite3
import subprocess
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import pairwise
from signal import SIGABRT, SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pytest
import trio

from factoryd.adapters.heartbeat_file import read_living
from factoryd.adapters.pidfd import PidFd, Verdict, open_verified
from factoryd.adapters.proc import read_stat
from factoryd.core.events import (
    AttemptStarted,
    IssueEscalated,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarted,
    RunStarting,
)
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.model import ProcessIdentity
from tests.conftest import empty
from tests.system.daemons import a_place, configuration, eventually, is_started, is_stopped
from tests.system.fleets import (
    HOUR_S,
    SECTIONS,
    backdate,
    check_fifty_notice_nothing,
    check_forwarded,
    counting,
    forward,
    let_end,
    next_daemon,
    of_kind,
    processes,
)

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(120)]


async def kill(daemon):
    daemon.signal(SIGKILL)
    assert await daemon.wait() == -SIGKILL


# ------------------------------------------------------------------------------------ fifty agents


@asynccontextmanager
async def killed(daemon):
    await kill(daemon)
    yield


async def test_fifty_agents_notice_nothing_of_their_daemons_deaths():
    with a_place(**SECTIONS) as place:
        await check_fifty_notice_nothing(place, killed)


@asynccontextmanager
async def hung_and_killed(daemon):
    """Have a daemon hang at an escalation, and end it as a watchdog does: as who it is, by SIGABRT."""
    place = daemon.place
    count = len(of_kind(place, IssueEscalated))
    place.put(f"H-{count}", "exit 0", repo="nowhere")
    await place.wait_for(lambda: len(of_kind(place, IssueEscalated)) > count)
    await eventually(partial(is_hung, daemon))
    beat = read_living(place.runtime / "heartbeat")
    assert isinstance(beat, Heartbeat), beat
    process = open_verified(
        ProcessIdentity(pid=beat.pid, start_ticks=beat.start_ticks, boot_id=beat.boot_id)
    )
    assert isinstance(process, PidFd), process
    with process:
        assert process.send(SIGABRT) is Verdict.SENT
    assert await daemon.wait() == -SIGABRT
    yield


async def test_fifty_agents_notice_nothing_of_a_hung_daemon_that_its_watchdog_kills():
    with a_place(**SECTIONS) as place:
        hang = "hang:issue-escalated"
        await check_fifty_notice_nothing(place, hung_and_killed, FACTORYD_FAULT=hang)


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
            await place.wait_for(lambda: len(of_kind(place, RunStarted)) == len(keys))
            if fault is not None:
                await eventually(partial(is_hung, first))
            alive = processes(place)
            for number in signals:
                first.signal(number)
                if number == SIGSTOP:
                    await place.wait_for(lambda: is_stopped(first.pid))
            assert await first.wait() == -ends_by
            assert processes(place) == alive
        async with next_daemon(place, keys) as second:
            assert processes(place) == alive
            let_end(place, *keys)
            for key in keys:
                await second.wait_issue(key, "done")
        assert len(of_kind(place, RunStarting)) == len(keys)


def has_printed(runs):
    return any(b"line 3" in path.read_bytes() for path in runs.glob("*/output"))


async def is_hung(daemon):
    """Say whether a daemon sleeps while somebody waits for its answer."""
    with trio.move_on_after(0.3):
        await daemon.status()
        return False
    stat = read_stat(daemon.pid)
    return stat is not None and stat.state == "S"


# ------------------------------------------------------------------------------- unfinished stops


@pytest.mark.parametrize("containment", ["cgroup", "subreaper"])
async def test_a_stop_that_a_daemon_did_not_live_to_finish_is_finished_by_the_next_one(containment):
    """The agent has had the signal, and would go on and end well: nobody waits for that."""
    factory = f'containment = "{containment}"'
    with a_place(factory=factory, stop='grace = "60s"') as place:
        deaf = "exec $PYTHON $AGENT ignore:TERM say:up count:../go-A-1"
        place.put("A-1", f"if [ -e ../again ]; then exit 0; fi; touch ../again; {deaf}")
        async with place.daemon() as first:
            agent = await first.wait_running("A-1")
            first.signal(SIGTERM)
            noted = place.state / "runs" / "A-1" / agent["run"] / "stopping"
            await place.wait_for(noted.exists)
            await kill(first)
        place.config.write_text(configuration(factory=factory, stop='grace = "300ms"'))
        async with place.daemon() as second:
            await second.wait_issue("A-1", "done")
        emptied = [one.fact for one in of_kind(place, RunEmptied)]
        assert [one.result for one in emptied] == [RunResult.STOPPED, RunResult.SUCCEEDED]
        assert emptied[0].run == agent["run"]
        assert emptied[0].report.emptied
        assert [one.fact.run for one in of_kind(place, RunExited)] == [emptied[1].run]
        assert len(of_kind(place, AttemptStarted)) == 1


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
    with a_place(dispatch='time_limit = "30m"') as place:
        for key in ("A-1", "A-2"):
            place.put(key, counting(key))
        async with place.daemon() as first:
            for key in ("A-1", "A-2"):
                await first.wait_issue(key, "running", when=is_started)
            await kill(first)
        backdate(place, AttemptStarted, HOUR_S, "A-1")
        async with place.daemon() as second:
            issue = await second.wait_issue("A-1", "parked")
            assert "time limit" in issue["reason"]
            let_end(place, "A-2")
            await second.wait_issue("A-2", "done")
        assert len(of_kind(place, RunStarting)) == 2


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


@asynccontextmanager
async def forwarding(place, most=0, **environment):
    """Run a daemon that forwards what agents print to a file; what ends it is the test's affair."""
    forward(place, most)
    daemon = await place.start(**environment)
    try:
        yield daemon
    finally:
        with trio.CancelScope(shield=True):
            if daemon.process.returncode is None:
                daemon.process.kill()
            await daemon.process.wait()


async def test_no_line_is_lost_and_one_that_is_repeated_has_the_same_offset():
    keys = ["A-1", "A-2", "A-3"]
    with a_place(output="journal = true\njournal_rate = 0") as place:
        for key in keys:
            place.put(key, counting(key))
        for most in (20, 1, 50):
            async with forwarding(place, most) as daemon:
                assert await daemon.wait() == -SIGKILL
        async with forwarding(place) as last:
            await place.wait_for(lambda: all(count_lines(place, key) > 20 for key in keys))
            let_end(place, *keys)
            for key in keys:
                await last.wait_issue(key, "done")
            logs = [await last.call("Logs", target=key, lines=10_000) for key in keys]
            assert await last.stop() == 0
        assert check_forwarded(place, *keys) >= 3
        for key, log in zip(keys, logs, strict=True):
            assert len(log["lines"]) > 20
            check_log(place, key, log)


def count_lines(place, key):
    (output,) = (place.state / "runs" / key).glob("*/output")
    return output.read_bytes().count(b"\n")


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
    await place.wait_for(lambda: not place.survivors())
    for key, (agent,) in agents.items():
        (place.state / "runs" / key / agent["run"] / "status").unlink()
