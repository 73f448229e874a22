"""`restart --keep-agents`: a new daemon, the same agents, with and without a service manager."""

import json
import os
import sys
from contextlib import asynccontextmanager
from signal import SIGTERM

import psutil
import pytest
import trio

from factoryd.core.errors import KEEP_AGENTS_STATUS
from tests.system.daemons import CallFailed, a_daemon, a_place, connect, eventually, play
from tests.system.fleets import SECTIONS, check_fifty_notice_nothing
from tests.system.test_freeze import COUNT, Counter

pytestmark = [pytest.mark.system, pytest.mark.slow]

AGENTS = 6
TALK = """
echo up
echo start >>../starts-{n}
n=0
until [ -e ../go ]; do n=$((n + 1)); echo "line $n"; sleep 0.2; done
echo "lines $n"
exit {n}
"""


async def ctl(place, *arguments):
    """Run factoryctl for the daemons of a place."""
    command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket), *arguments]
    return await place.run(command=command)


def zombies(pid):
    return [one.pid for one in psutil.Process(pid).children() if one.status() == "zombie"]


async def check_ended_well(daemon, agents):
    """Let all agents end; each did once what it was started for, and no line of it is missing."""
    (daemon.place.root / "go").touch()
    for n, before in enumerate(agents):
        key = f"A-{n}"
        (agent,) = (await daemon.wait_issue(key, "parked" if n else "done"))["agents"]
        assert (agent["run"], agent["exit"]) == (before["run"], n)
        assert (daemon.place.root / f"starts-{n}").read_text() == "start\n"
        kinds = await daemon.kinds_of(key)
        assert kinds.count("run-starting") == kinds.count("run-emptied") == 1
        assert kinds.count("attempt-started") == 1
        logs = await daemon.call("Logs", target=key, lines=10_000)
        texts = [line["text"] for line in logs["lines"]]
        count = len(texts) - 2
        assert texts == ["up", *(f"line {i + 1}" for i in range(count)), f"lines {count}"]


async def start_talkers(daemon, count=AGENTS):
    for n in range(count):
        daemon.place.put(f"A-{n}", TALK.format(n=n))
    return [await daemon.wait_running(f"A-{n}") for n in range(count)]


@pytest.mark.timeout(90)
@pytest.mark.parametrize(("containment", "count"), [("cgroup", 50), ("subreaper", AGENTS)])
async def test_a_daemon_on_a_terminal_becomes_the_next_one_and_its_agents_notice_nothing(
    containment, count
):
    async with a_daemon(factory=f'slots = 50\ncontainment = "{containment}"') as daemon:
        agents = await start_talkers(daemon, count)
        old = (await daemon.status())["daemon"]
        restarted = await ctl(daemon.place, "--json", "restart", "--keep-agents")
        assert restarted.returncode == 0, restarted.stderr
        answer = json.loads(restarted.stdout)
        assert (answer["pid"], answer["adopted_runs"]) == (daemon.pid, count)
        assert answer["started_at"] > old["started_at"]
        for n, agent in enumerate(agents):
            after = await daemon.wait_running(f"A-{n}")
            assert (after["pid"], after["run"]) == (agent["pid"], agent["run"])
        await check_ended_well(daemon, agents)
        assert zombies(daemon.pid) == [], "those that the former self had started are waited for"
        kinds = await daemon.kinds_of(None)
        assert kinds.count("daemon-started") == 2
        facts = (await daemon.call("Events", limit=10_000))["facts"]
        (stopped,) = [fact["body"] for fact in facts if fact["kind"] == "daemon-stopped"]
        assert (stopped["clean"], stopped["kept"]) == (True, count)


@asynccontextmanager
async def a_managed_place():
    """Make a place, with a service manager that listens all the time; yields what it is told, too."""
    told = list[str]()

    async def listen():
        while True:
            told.extend((await listening.recv(4096)).decode().splitlines())

    with (
        a_place() as place,
        trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as listening,
    ):
        path = str(place.root / "notify")
        await listening.bind(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            yield place, path, told
            nursery.cancel_scope.cancel(reason="all is said")


@pytest.mark.timeout(90)
async def test_under_a_service_manager_the_daemon_ends_with_its_own_status_and_agents_go_on():
    async with a_managed_place() as (place, notify, told):
        async with place.daemon(NOTIFY_SOCKET=notify) as first:
            agents = await start_talkers(first)
            async with trio.open_nursery() as nursery:

                async def restart():
                    done = await ctl(place, "restart", "--keep-agents")
                    assert done.returncode == 0, done.stderr
                    assert (
                        done.stdout
                        == f"factoryd (pid {second.pid}) goes on: {AGENTS} runs adopted\n"
                    )

                nursery.start_soon(restart)
                assert await first.wait() == KEEP_AGENTS_STATUS == 75
                await place.wait_for(lambda: {"READY=1", "STOPPING=1"} <= set(told))
                assert [psutil.pid_exists(agent["pid"]) for agent in agents] == [True] * AGENTS
                assert not (place.runtime / "heartbeat").exists()
                second = await place.start(NOTIFY_SOCKET=notify)
        try:
            await check_ended_well(second, agents)
            assert await second.stop() == 0
        finally:
            if second.process.returncode is None:
                second.process.kill()
            await second.process.wait()


@asynccontextmanager
async def restarted(daemon):
    """Have a person restart a daemon of a service manager, which starts the next one."""
    async with trio.open_nursery() as nursery:

        async def restart():
            done = await ctl(daemon.place, "restart", "--keep-agents")
            assert done.returncode == 0, done.stderr

        nursery.start_soon(restart)
        assert await daemon.wait() == KEEP_AGENTS_STATUS
        yield


@pytest.mark.timeout(120)
async def test_fifty_agents_notice_nothing_of_a_restart():
    with a_place(**SECTIONS) as place:
        nobody = str(place.root / "nobody-listens")
        repeated = await check_fifty_notice_nothing(place, restarted, NOTIFY_SOCKET=nobody)
        assert repeated == 0, "what was passed on is noted"


async def test_a_restart_ends_what_is_being_killed_and_keeps_the_rest():
    async with a_daemon(stop='grace = "2s"') as daemon:
        daemon.place.put("A-1", play("ignore:TERM", "child:2"))
        daemon.place.put("A-2", play("child:2"))
        await daemon.wait_running("A-1")
        kept = await daemon.wait_running("A-2")
        await daemon.call("Kill", targets=["A-1"], wait=False)
        assert (await ctl(daemon.place, "restart", "--keep-agents")).returncode == 0
        await daemon.wait_issue("A-1", "cancelled")
        assert (await daemon.wait_running("A-2"))["pid"] == kept["pid"]
        await daemon.call("Kill", targets=["A-2"])
        assert daemon.place.survivors() == []


async def test_who_stops_a_daemon_that_is_leaving_its_agents_ends_them_after_all():
    async with a_daemon(stop='grace = "60s"') as daemon:
        daemon.place.put("A-1", play("ignore:TERM"))
        daemon.place.put("A-2", play("child:2"))
        await daemon.wait_running("A-1")
        await daemon.wait_running("A-2")
        await daemon.call("Kill", targets=["A-1"], wait=False)  # takes its grace
        async with connect(daemon.place.socket) as client:
            await client.call("Shutdown", keep_agents=True)
        daemon.signal(SIGTERM)
        await daemon.place.wait_for(lambda: "stopping, agents and all" in daemon.place.log)
        assert await daemon.stop() == 0, "asked once more, it skips the grace"


LATE = """
import os, signal, sys, threading
from factoryd.__main__ import main
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.daemon import Daemon

save, stop, heard = SqliteStore.save_snapshot, Daemon.stop, threading.Event()

def save_late(store, seq, body):
    save(store, seq, body)
    heard.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    heard.wait()

def stop_and_tell(daemon, *args, **kwargs):
    stop(daemon, *args, **kwargs)
    heard.set()

SqliteStore.save_snapshot, Daemon.stop = save_late, stop_and_tell
sys.exit(main(sys.argv[1:]))
"""
"""A daemon that gets SIGTERM when it has said its last word."""


async def test_a_signal_at_the_last_moment_ends_the_agents_that_were_to_be_kept(monkeypatch):
    with a_place() as place:
        arguments = place.command()[3:]
        monkeypatch.setattr(place, "command", lambda: [sys.executable, "-c", LATE, *arguments])
        async with place.daemon() as daemon:
            place.put("A-1", play("child:2"))
            await daemon.wait_running("A-1")
            await daemon.call("Shutdown", keep_agents=True)
            assert await daemon.wait() == 0
            assert place.survivors() == []
            assert not (place.runtime / "heartbeat").exists()


async def test_a_frozen_agent_is_still_frozen_after_a_restart():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", COUNT)
        agent, counter = await daemon.wait_running("A-1"), Counter(daemon.place)
        await counter.wait_moving()
        await daemon.call("Freeze", target="A-1")
        assert (await ctl(daemon.place, "restart", "--keep-agents")).returncode == 0
        issue = await daemon.wait_issue("A-1", when=lambda one: one["frozen"])
        assert issue["agents"][0]["pid"] == agent["pid"]
        assert await counter.stands_still()
        assert (await daemon.call("Thaw", target="A-1"))["issue"] == "A-1"
        await counter.wait_moving()


async def test_a_daemon_can_be_restarted_again_and_again():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play())
        agent = await daemon.wait_running("A-1")
        followed = daemon.place.state / "runs" / "A-1" / agent["run"] / "followed"
        await daemon.place.wait_for(followed.exists)  # so its output is open
        before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        for _ in range(3):
            done = await ctl(daemon.place, "restart", "--keep-agents")
            assert done.returncode == 0, done.stderr
            assert (await daemon.wait_running("A-1"))["pid"] == agent["pid"]

        async def as_before():
            return len(os.listdir(f"/proc/{daemon.pid}/fd")) <= before

        await eventually(as_before)


async def test_a_daemon_that_is_stopping_with_its_agents_cannot_be_asked_to_keep_them():
    async with a_daemon(stop='grace = "60s"') as daemon:
        daemon.place.put("A-1", play("ignore:TERM"))
        await daemon.wait_running("A-1")
        async with connect(daemon.place.socket) as stopping, connect(daemon.place.socket) as late:
            await late.call("Health")
            await stopping.call("Shutdown")
            with pytest.raises(CallFailed, match="stopping already") as failed:
                await late.call("Shutdown", keep_agents=True)
            assert failed.value.name == "Refused"
        assert await daemon.stop() == 0, "asked again, it skips the grace"


async def test_a_restart_that_would_end_the_agents_is_not_understood():
    async with a_daemon() as daemon:
        done = await ctl(daemon.place, "restart")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--keep-agents" in done.stderr
        assert "factoryctl shutdown" in done.stderr
        assert (await daemon.call("Health"))["state"] == "ok"
    with a_place() as place:
        assert (await ctl(place, "restart", "--keep-agents")).returncode == 3


async def test_doctor_asks_the_daemon_that_runs_and_looks_at_the_rest():
    async with a_daemon() as daemon:
        place = daemon.place
        where = [
            "--config",
            place.config,
            "--state-dir",
            place.state,
            "--runtime-dir",
            place.runtime,
        ]
        before = cgroups(place)
        done = await ctl(place, "--json", *map(str, where), "doctor")
        assert done.returncode == 0, done.stdout
        checks = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
        assert f"pid {daemon.pid}" in checks["daemon"]["detail"]
        assert checks["containment"]["detail"] == "cgroup is in force in the daemon that runs"
        assert checks["configuration"]["detail"] == str(place.config)
        assert checks["state directory"]["detail"] == str(place.state)
        assert "kept by each run's shim" in checks["exit statuses"]["detail"]
        assert checks["agent worker"]["detail"] == "/bin/sh"
        assert cgroups(place) == before


def cgroups(place):
    own = place.cgroup.parent
    return {str(path) for path in own.iterdir() if path.name.startswith("factoryd-doctor")}


async def test_doctor_works_when_everything_is_broken_and_says_what_is():
    with a_place() as place:
        place.config.write_text("[factory]\nslots = 0\n[nonsense]\n")
        (place.root / "s").touch()
        where = [
            "--config",
            place.config,
            "--state-dir",
            place.state,
            "--runtime-dir",
            "/dev/null/x",
        ]
        before = tree(place.root)
        for command in (
            ["factoryctl", "--socket", str(place.socket), "doctor", *map(str, where)],
            ["factoryd", "doctor", *map(str, where)],
        ):
            done = await place.run(command=[sys.executable, "-m", *command], NOTIFY_SOCKET="")
            assert done.returncode == 1, done.stderr
            assert done.stderr == ""
            for said in ("factory.slots", "nonsense", "not a directory", "/dev/null/x", "pidfd"):
                assert said in done.stdout, done.stdout
        assert tree(place.root) == before


def tree(root):
    return sorted(root.rglob("*"))
