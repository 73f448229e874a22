"""`factoryd reap` and `factoryctl reap-orphans`: what a dead or hung daemon leaves is ended."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from signal import SIGCONT, SIGKILL, SIGSTOP
from types import SimpleNamespace

import pytest
import trio

from factoryctl.offline import judge
from factoryd.adapters.cgroup import Leaf
from factoryd.adapters.pidfd import PidFd, identify, open_verified
from factoryd.core.errors import KEEP_AGENTS_STATUS
from tests.system.daemons import a_daemon, a_place, is_stopped, play
from tests.system.test_daemon import picture

pytestmark = pytest.mark.system

# Names that no other factory of this machine has: agents are looked for by name.
KEY, KEY_2 = f"R{os.getpid()}-1", f"R{os.getpid()}-2"
NAME, NAME_2 = f"{KEY.lower()}-w", f"{KEY_2.lower()}-w"
TREE = play("child:2", "double-fork", "setsid", "escape", "bare-child")
DEAF = play("ignore:TERM", "child:1")
QUICK = 'grace = "300ms"\n[heartbeat]\nstale_after = "400ms"'
"""A daemon that is silent for so long hangs."""


def options(place, *more):
    directories = ("--state-dir", str(place.state), "--runtime-dir", str(place.runtime))
    return [*("--config", str(place.config)), *directories, *more]


async def reap(place, *more, **environ):
    """Run `factoryd reap --json`; return its exit status, its document and what it told people."""
    command = [sys.executable, "-m", "factoryd", "reap", *options(place), "--json", *more]
    done = await place.run(command=command, **environ)
    said = json.loads(done.stdout) if done.stdout else {}
    return SimpleNamespace(status=done.returncode, stderr=done.stderr, **said)


async def ctl(place, *arguments, **environ):
    command = [sys.executable, "-m", "factoryctl", *options(place), *arguments]
    return await place.run(command=command, **environ)


def agents(done):
    return [one["agent"] for one in done.reaped]


def reasons(done):
    return {(one["agent"], one["reason"].partition(":")[0]) for one in done.skipped}


async def killed(daemon, *keys):
    """Kill the daemon once the agents of these issues are up; return them."""
    running = [await daemon.wait_running(key) for key in keys]
    daemon.signal(SIGKILL)
    await daemon.wait()
    assert len(daemon.place.survivors()) >= len(keys)
    return running


async def hung(daemon):
    """Have the daemon stand still until its heartbeat is stale."""
    await stopped(daemon)

    def is_stale():
        verdict = judge(str(daemon.place.socket))
        return verdict is not None and not verdict.fresh

    await daemon.place.wait_for(is_stale)


async def stopped(daemon):
    """Have every thread of the daemon stand still."""
    daemon.signal(SIGSTOP)
    await daemon.place.wait_for(lambda: is_stopped(daemon.pid))


def pids_left(place):
    """Return who of the agents is there, whatever program each has become by now."""
    return [int(line.partition(" ")[0]) for line in place.survivors()]


def forget(place, *kinds):
    """Take facts out of a dead daemon's ledger, as if it had died before them."""
    ledger = place.state / "ledger.sqlite"
    with sqlite3.connect(ledger) as database:
        marks = ", ".join("?" * len(kinds))
        database.execute(f"DELETE FROM fact WHERE kind IN ({marks})", kinds)
        database.execute("DELETE FROM snapshot")
    database.close()


def who(pid):
    identity = identify(pid)
    assert identity is not None
    return identity


@contextmanager
def a_factory(**sections):
    """Make a place for daemons; also after a failure, nothing of what ran there is left."""
    with a_place(**sections) as place:
        try:
            yield place
        except BaseException:
            for line in place.survivors():
                left = open_verified(who(int(line.partition(" ")[0])))
                if isinstance(left, PidFd):
                    with left:
                        left.send(SIGKILL)
            raise


@contextmanager
def stray_of(place):
    """Run a process in a leaf below the daemon's root that no record knows."""
    leaf = Leaf(place.cgroup / "agents" / "A-9" / "a-9-w-0")
    leaf.create()
    stray = subprocess.Popen(["sleep", "600"])
    try:
        leaf.procs.write_text(str(stray.pid))
        yield stray
    finally:
        stray.kill()
        stray.wait()


@contextmanager
def decoy(*words):
    """Run a process with these words on its command line; it must be there at the end."""
    command = ["/bin/sh", "-c", "read line; :", *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield process
        assert process.poll() is None, f"{words} was ended"
    finally:
        process.communicate(b"\n")


# ------------------------------------------------------------------------------------------- dead


async def test_what_a_killed_daemon_left_is_reaped_by_proof_and_named():
    with a_factory() as place:
        place.put(KEY, TREE)
        place.put(KEY_2, DEAF)
        async with place.daemon() as daemon:
            first, second = await killed(daemon, KEY, KEY_2)
            done = await reap(place)
            assert (done.status, done.daemon, done.survivors) == (0, "dead", 0)
            assert place.survivors() == []
            assert agents(done) == [NAME, NAME_2]
            assert [one["run"] for one in done.reaped] == [first["run"], second["run"]]
            for one, agent, least in zip(done.reaped, (first, second), (7, 3), strict=True):
                assert agent["pid"] in one["pids"]
                assert len(one["pids"]) >= least
            assert done.skipped == []
            again = await reap(place)
            assert (again.status, again.reaped) == (0, [])
            assert reasons(again) == {(NAME, "gone"), (NAME_2, "gone")}


async def test_an_agent_that_was_reaped_has_not_succeeded_whatever_it_said():
    with a_factory(dispatch="max_attempts = 1") as place:
        place.put(KEY, f"echo start >>../starts; test -e ../again || {play('on-term:0')}")
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        assert (await reap(place)).status == 0
        (place.root / "again").touch()
        async with place.daemon() as daemon:
            await daemon.wait_issue(KEY, "done")
            assert (place.root / "starts").read_text() == "start\nstart\n"


async def test_the_next_daemon_closes_what_was_reaped_and_goes_on_with_the_issue():
    with a_factory(dispatch="max_attempts = 1") as place:
        place.put(KEY, f"echo start >>../starts; test ! -e ../again || exit 7; {TREE}")
        async with place.daemon() as daemon:
            (first,) = await killed(daemon, KEY)
        assert (await reap(place)).status == 0
        (place.root / "again").touch()
        async with place.daemon() as daemon:
            await daemon.wait_issue(KEY, "parked")
            facts = (await daemon.call("Events", issue=KEY))["facts"]
            ends = [fact["body"] for fact in facts if fact["kind"] == "run-emptied"]
            assert [end["result"] for end in ends] == ["stopped", "crashed"]
            assert ends[0]["run"] == first["run"]
        assert (place.root / "starts").read_text() == "start\nstart\n"


async def test_a_free_lock_means_dead_however_fresh_the_heartbeat_is():
    with a_factory() as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
            assert (place.runtime / "heartbeat").exists()
            assert agents(await reap(place)) == [NAME]


async def test_a_factory_that_never_was_has_nothing_to_reap_and_nothing_is_made():
    with a_factory() as place:
        before = picture(place.root)
        done = await reap(place)
        assert (done.status, done.daemon, done.reaped, done.skipped) == (0, "dead", [], [])
        assert picture(place.root) == before


async def test_a_dry_run_of_the_reaper_says_what_it_would_do_and_touches_nothing():
    with a_factory() as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            (agent,) = await killed(daemon, KEY)
            before, running = picture(place.root), pids_left(place)
            done = await reap(place, "--dry-run")
            assert (done.status, agents(done)) == (0, [NAME])
            assert agent["pid"] in done.reaped[0]["pids"]
            assert picture(place.root) == before
            assert pids_left(place) == running
            plain = [sys.executable, "-m", "factoryd", "reap", *options(place), "--dry-run"]
            said = (await place.run(command=plain)).stdout
            assert f"{NAME}  would be emptied: run {agent['run']}, pids " in said
            assert (await reap(place)).status == 0


async def test_while_a_reaper_works_no_daemon_starts_and_no_second_reaper():
    with a_factory(stop='grace = "60s"') as place:
        place.put(KEY, "exec $PYTHON $AGENT ignore:TERM say:up await:../go")
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
            ended = []
            async with trio.open_nursery() as nursery:

                async def first():
                    ended.append(await reap(place))

                nursery.start_soon(first)
                lock = place.state / "lock"
                await place.wait_for(lambda: "reaping" in lock.read_text())
                second, start = await reap(place, "--force"), await place.run()
                assert not ended
                (place.root / "go").touch()
            assert ended[0].status == 0
            assert (second.status, second.daemon) == (1, "alive")
            assert "another `factoryd reap (pid" in second.stderr
            assert start.returncode == 1
            assert "factoryd reap is at work here" in start.stderr


# ------------------------------------------------------------------------------------------ alive


async def test_a_daemon_that_lives_is_left_alone_with_all_its_agents():
    async with a_daemon() as daemon:
        daemon.place.put(KEY, play())
        await daemon.wait_running(KEY)
        running = daemon.place.survivors()
        for more in ((), ("--force",), ("--dry-run",)):
            done = await reap(daemon.place, *more)
            assert (done.status, done.daemon, done.reaped) == (1, "alive", [])
            assert f"factoryd (pid {daemon.pid}) is running" in done.stderr
            assert "factoryctl reap-orphans" in done.stderr
            assert done.stderr.count("\n") == 1
        assert daemon.place.survivors() == running
        assert (await daemon.call("Health"))["state"] == "ok"


async def test_a_daemon_that_uses_only_our_runtime_directory_is_never_ours_to_end():
    with a_factory(stop=QUICK) as place:
        async with place.daemon() as daemon:
            await hung(daemon)
            elsewhere = str(place.root / "s2")
            done = await reap(place, "--state-dir", elsewhere, "--force")
            assert (done.status, done.daemon) == (1, "hung")
            assert "--runtime-dir" in done.stderr
            assert daemon.process.poll() is None
            daemon.process.kill()
            await daemon.wait()


# ------------------------------------------------------------------------------------------- hung


async def test_a_hung_daemon_is_killed_first_when_forced_and_then_nothing_runs():
    with a_factory(stop=QUICK) as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            await daemon.wait_running(KEY)
            await hung(daemon)
            health = await ctl(place, "health", "--json")
            assert health.returncode == 5
            assert json.loads(health.stdout)["state"] == "hung"
            refused = await reap(place)
            assert (refused.status, refused.daemon, refused.reaped) == (1, "hung", [])
            assert "--force" in refused.stderr
            foreseen = await reap(place, "--force", "--dry-run")
            assert (foreseen.status, agents(foreseen)) == (0, [NAME])
            assert daemon.process.poll() is None
            assert place.survivors() != []
            done = await reap(place, "--force")
            assert (done.status, done.daemon, agents(done)) == (0, "hung", [NAME])
            assert await daemon.wait() == -SIGKILL
            assert place.survivors() == []


async def test_a_daemon_that_hangs_while_it_stops_is_reaped_as_well():
    with a_factory(stop=QUICK.replace("300ms", "60s")) as place:
        place.put(KEY, DEAF)
        async with place.daemon() as daemon:
            await daemon.wait_running(KEY)
            daemon.process.terminate()
            heartbeat = place.runtime / "heartbeat"
            await place.wait_for(lambda: b'"stopping"' in heartbeat.read_bytes())
            await hung(daemon)
            refused = await reap(place)
            assert "hangs while it stops" in refused.stderr
            place.config.write_text(place.config.read_text().replace("60s", "100ms"))
            done = await reap(place, "--force")
            assert (done.status, done.daemon, agents(done)) == (0, "hung", [NAME])
            assert await daemon.wait() == -SIGKILL


HEARTBEATS = {
    "none": None,
    "garbage": b"\xff{",
    "another boot": {"boot_id": "x"},
    "another process": {"pid": os.getpid()},
    "a recycled pid": {"start_ticks": 1},
    "the future": {"boottime": 1e15},
}


@pytest.mark.parametrize("changed", HEARTBEATS.values(), ids=HEARTBEATS)
async def test_whoever_holds_the_lock_is_never_killed_on_a_heartbeat_that_proves_nothing(changed):
    with a_factory(stop=QUICK) as place:
        async with place.daemon() as daemon:
            await hung(daemon)
            heartbeat = place.runtime / "heartbeat"
            if isinstance(changed, dict):
                beat = json.loads(heartbeat.read_bytes())
                if changed.get("pid"):
                    changed = {**changed, "start_ticks": who(os.getpid()).start_ticks}
                changed = json.dumps({**beat, **changed}).encode()
            heartbeat.unlink()
            if changed is not None:
                heartbeat.write_bytes(changed)
            done = await reap(place, "--force")
            assert (done.status, done.daemon) == (1, "hung")
            assert "cannot be verified" in done.stderr
            assert daemon.process.poll() is None
            daemon.process.kill()
            await daemon.wait()


# ------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("containment", ["cgroup", "subreaper"])
async def test_a_run_without_a_pid_is_found_by_its_name_and_lookalikes_survive(containment):
    with a_factory(factory=f'containment = "{containment}"') as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            (agent,) = await killed(daemon, KEY)
        forget(place, "run-started")
        name, run = NAME, agent["run"]
        with (
            decoy("--agent-name", f"{name}-2", "--run", run),
            decoy(f"--agent-name={name}x", f"--run={run}"),
            decoy("--note", f"--agent-name {name}", "--run", run),
            decoy(name, run),
            decoy("--", "--agent-name", name, "--run", run),
        ):
            done = await reap(place)
        assert (done.status, agents(done), done.skipped) == (0, [name], [])
        assert agent["pid"] in done.reaped[0]["pids"]
        assert place.survivors() == []


@pytest.mark.parametrize("containment", ["cgroup", "subreaper"])
async def test_a_name_that_two_have_is_ambiguous_and_neither_is_signalled(containment):
    with a_factory(factory=f'containment = "{containment}"') as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            (agent,) = await killed(daemon, KEY)
        forget(place, "run-started")
        with decoy("--agent-name", NAME, "--run", agent["run"]) as twin:
            running = pids_left(place)
            done = await reap(place)
            assert (NAME, "ambiguous") in reasons(done)
            assert {agent["pid"], twin.pid} == {one["pid"] for one in done.skipped}
            if containment == "cgroup":  # the leaf is proof by itself
                assert (done.status, agents(done)) == (0, [NAME])
                assert place.survivors() == []
            else:
                assert (done.status, agents(done)) == (7, [])
                assert pids_left(place) == running
        assert (await reap(place)).status == 0


async def test_one_of_that_name_but_of_another_run_is_a_mismatch_and_left_alone():
    with a_factory(factory='containment = "subreaper"') as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            (agent,) = await killed(daemon, KEY)
        forget(place, "run-started")
        shim = open_verified(who(agent["pid"]))
        assert isinstance(shim, PidFd)
        with shim, decoy("--agent-name", NAME, "--run", f"{NAME}-00000000") as other:
            shim.send(SIGKILL)
            await shim.wait_ended()
            done = await reap(place)
            assert done.status == 7
            assert [(one["agent"], one["pid"]) for one in done.skipped] == [(NAME, other.pid)]
            assert done.skipped[0]["reason"].startswith("mismatch")
        async with place.daemon() as daemon:  # the next daemon knows it by its mark
            await daemon.wait_running(KEY)
            facts = (await daemon.call("Events", issue=KEY))["facts"]
            (end,) = [fact["body"] for fact in facts if fact["kind"] == "run-emptied"]
            assert (end["run"], end["report"]["killed"]) == (agent["run"], 1)


async def test_a_shim_that_is_missing_leaves_its_leaf_to_be_emptied():
    with a_factory() as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            (agent,) = await killed(daemon, KEY)
        forget(place, "run-started")
        shim = open_verified(who(agent["pid"]))
        assert isinstance(shim, PidFd)
        with shim:
            shim.send(SIGKILL)
            await shim.wait_ended()
        done = await reap(place)
        assert (done.status, agents(done)) == (0, [NAME])
        assert reasons(done) == {(NAME, "missing")}
        assert place.survivors() == []


async def test_a_recycled_pid_is_probed_and_never_signalled():
    with a_factory() as place, decoy("whoever") as other:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            (agent,) = await killed(daemon, KEY)
        ledger = place.state / "ledger.sqlite"
        with sqlite3.connect(ledger) as database:
            change = "json_set(body, '$.identity.pid', ?)"
            database.execute(
                f"UPDATE fact SET body = {change} WHERE kind = 'run-started'", [other.pid]
            )
        database.close()
        done = await reap(place)
        assert (done.status, agents(done)) == (0, [NAME])
        assert other.pid not in done.reaped[0]["pids"]
        assert agent["pid"] in done.reaped[0]["pids"]
        assert {
            "agent": NAME,
            "pid": other.pid,
            "reason": "pid identity mismatch",
        } in done.skipped


# ----------------------------------------------------------------------------------- broken things


async def test_a_broken_configuration_leaves_the_last_daemons_protection_in_force():
    is_sleep = '[ "$(cat /proc/$!/comm)" = sleep ]'  # no longer the shell that has begun it
    script = f"sleep 600 & until {is_sleep}; do sleep 0.01; done; {play()}"
    with a_factory(stop='[protect]\ncommands = ["sleep"]') as place:
        place.put(KEY, script)
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        good = place.config.read_text()
        place.config.write_text("this is no configuration")
        done = await reap(place)
        assert done.status == 7
        assert "agents are stopped as the last daemon stopped them" in done.stderr
        assert "factoryd.toml" in done.stderr
        assert reasons(done) == {(NAME, "protected")}
        assert [line.split()[1] for line in place.survivors()] == ["sleep"]
        place.config.write_text(good.replace('"sleep"', ""))
        assert (await reap(place)).status == 0


@pytest.mark.parametrize("broken", ["missing", "source"])
async def test_neither_configuration_nor_source_need_be_there(broken):
    with a_factory() as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        lost = place.config if broken == "missing" else place.root / "issues"
        lost.rename(place.root / "lost")
        done = await reap(place)
        assert (done.status, agents(done)) == (0, [NAME])


async def test_trees_that_no_record_knows_are_found_below_our_own_root():
    with a_factory() as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        (place.state / "ledger.sqlite").rename(place.root / "lost")
        running = pids_left(place)
        good = place.config.read_text()
        place.config.write_text("")
        unsure = await reap(place)
        assert unsure.status == 7
        assert [one["agent"] for one in unsure.skipped] == [NAME]
        assert "what is protected" in unsure.skipped[0]["reason"]
        assert pids_left(place) == running
        place.config.write_text(good)
        done = await reap(place)
        assert (done.status, agents(done)) == (0, [NAME])


async def test_without_a_readable_ledger_its_trees_are_found_all_the_same_and_it_is_left_as_it_is():
    with a_factory() as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        ledger = place.state / "ledger.sqlite"
        ledger.write_bytes(b"This is no database. " * 100)
        (place.state / "ledger.sqlite-wal").unlink()
        done = await reap(place)
        assert (done.status, agents(done)) == (1, [NAME])
        assert str(ledger) in done.stderr
        assert ledger.read_bytes() == b"This is no database. " * 100


# ------------------------------------------------------------------------------------- after stop

STOPS = {
    "stopped": (("success", "exited", "0"), False, True),
    "crashed": (("signal", "killed", "KILL"), False, False),
    "watchdog": (("watchdog", "dumped", "ABRT"), False, False),
    "stopped in vain": (("timeout", "killed", "KILL"), False, True),
    "failed while stopping": (("exit-code", "exited", "1"), True, True),
    "agents kept": (("exit-code", "exited", str(KEEP_AGENTS_STATUS)), True, False),
}


@pytest.mark.parametrize(("end", "stopping", "ends"), STOPS.values(), ids=STOPS)
async def test_after_a_stop_all_is_ended_and_after_a_failure_nothing_is_touched(
    end, stopping, ends
):
    environ = dict(zip(("SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS"), end, strict=True))
    with a_factory() as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        heartbeat = place.runtime / "heartbeat"
        if stopping:
            heartbeat.write_text(heartbeat.read_text().replace('"running"', '"stopping"'))
        running = place.survivors()
        done = await reap(place, "--after-stop", **environ)
        assert (done.status, agents(done)) == (0, [NAME] if ends else [])
        assert place.survivors() == ([] if ends else running)
        assert bool(done.stderr) != ends
        assert (await reap(place)).status == 0


async def test_a_quiet_reaper_tells_what_it_ended_and_nothing_else():
    with a_factory() as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        done = await reap(place, "--quiet")
        assert (done.status, agents(done)) == (0, [NAME])
        command = [sys.executable, "-m", "factoryd", "reap", *options(place), "--quiet"]
        again = await place.run(command=command)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


async def test_after_stop_is_for_service_managers_only():
    with a_factory() as place:
        done = await reap(place, "--after-stop")
        assert done.status == 2
        assert "SERVICE_RESULT is not set" in done.stderr


# ---------------------------------------------------------------------------- through factoryctl


async def test_reap_orphans_asks_the_daemon_which_ends_what_nobody_owns():
    async with a_daemon() as daemon:
        place = daemon.place
        place.put(KEY, play())
        await daemon.wait_running(KEY)
        running = place.survivors()
        with stray_of(place) as stray:
            foreseen = json.loads((await ctl(place, "reap-orphans", "--dry-run", "--json")).stdout)
            assert [one["pids"] for one in foreseen["reaped"]] == [[stray.pid]]
            assert stray.poll() is None
            done = await ctl(place, "reap-orphans", "--json")
            answer = json.loads(done.stdout)
            assert (done.returncode, answer["daemon"]) == (0, "alive")
            reaped = {"agent": "a-9-w", "issue": "A-9", "run": "a-9-w-0", "pids": [stray.pid]}
            assert answer["reaped"] == [reaped]
        assert place.survivors() == running
        plain = await ctl(place, "reap-orphans")
        assert (plain.returncode, plain.stdout) == (0, "there was nothing to reap\n")


async def test_reap_orphans_without_a_daemon_is_factoryd_reap():
    with a_factory() as place:
        place.put(KEY, TREE)
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        foreseen = await ctl(place, "reap-orphans", "--dry-run")
        assert f"{NAME}  would be emptied" in foreseen.stdout
        place.config.write_text("broken")
        done = await ctl(place, "--json", "reap-orphans")
        assert done.returncode == 0
        answer = json.loads(done.stdout)
        assert (answer["daemon"], [one["agent"] for one in answer["reaped"]]) == ("dead", [NAME])
        assert "no factoryd is running" in done.stderr


async def test_reap_orphans_by_its_socket_alone_does_not_guess_whose_agents_to_end():
    with a_factory() as place:
        command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket)]
        done = await place.run(command=[*command, "reap-orphans"])
        assert done.returncode == 2
        assert "give --state-dir" in done.stderr


@pytest.mark.slow
async def test_reap_orphans_with_a_daemon_that_hangs_refuses_as_factoryd_reap_does():
    with a_factory(stop=QUICK) as place:
        async with place.daemon() as daemon:
            await hung(daemon)
            done = await ctl(place, "reap-orphans")
            assert done.returncode == 1
            assert "--force" in done.stderr
            daemon.process.kill()
            await daemon.wait()


async def test_the_daemon_itself_looks_for_strays_now_and_again():
    with a_factory(stop='[reaper]\ninterval = "100ms"') as place:
        async with place.daemon() as daemon:
            await stopped(daemon)  # it would take the leaf away before anybody is in it
            with stray_of(place) as stray:
                daemon.signal(SIGCONT)
                await place.wait_for(lambda: stray.poll() is not None)
            await place.wait_for(lambda: "a tree that no run owns emptied: a-9-w-0" in place.log)
            assert (await daemon.call("Health"))["state"] == "ok"
