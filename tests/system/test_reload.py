"""`factoryctl reload` and SIGHUP, as a real daemon with real agents takes them."""

import os
import pwd
import subprocess
import sys
from signal import SIGHUP, SIGTERM

import pytest
import trio

from tests.system.daemons import a_daemon, a_place, ask_as, configuration, connect, eventually, play

pytestmark = [pytest.mark.system, pytest.mark.slow]

DENIED = "org.varlink.service.PermissionDenied"
UNTIL_GO = "echo up\nuntil [ -e ../go ]; do sleep 0.05; done\n"


async def reload(place, *options):
    """Run `factoryctl reload` and return what came of it."""
    command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket), *options]
    return await place.run(command=[*command, "reload"])


def write(place, text):
    """Replace the configuration file, whole."""
    new = place.root / "new.toml"
    new.write_text(text)
    new.rename(place.config)


def of_kind(facts, kind):
    return [fact["body"] for fact in facts["facts"] if fact["kind"] == kind]


async def mistakes(daemon):
    return (await daemon.status())["daemon"]["config_mistakes"]


async def states(daemon):
    return {one["key"]: one["state"] for one in (await daemon.status())["issues"]}


# ------------------------------------------------------------------------- valid and invalid


async def test_rule_11_a_valid_file_is_loaded_and_its_changes_are_told():
    async with a_daemon() as daemon:
        place = daemon.place
        write(place, configuration(factory="slots = 3", stop='grace = "1s"'))
        done = await reload(place)
        assert (done.returncode, done.stdout, done.stderr) == (0, "factory.slots\nstop.grace\n", "")
        assert (await daemon.status())["daemon"]["slots"] == 3
        graces = [
            one["grace_s"] for one in of_kind(await daemon.call("Events"), "configuration-loaded")
        ]
        assert graces == [0.3, 1.0], "who reaps a dead daemon's agents goes by the newest"
        done = await reload(place)
        assert done.stdout == "nothing has changed\n"
        assert "configuration loaded anew: factory.slots, stop.grace" in place.log


def nothing(place):
    place.config.unlink()


def a_directory(place):
    place.config.unlink()
    place.config.mkdir()


def garbage(place):
    place.config.write_bytes(os.urandom(100_000))


def huge(place):
    with place.config.open("r+b") as file:
        file.truncate(1 << 40)


def unknown_keys(place):
    write(place, configuration(factory="slotz = 3") + "\n[nope]\nx = 1\n")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (nothing, "no such file"),
        (a_directory, "cannot be read"),
        (garbage, "is not UTF-8"),
        (huge, "is larger than 1048576 bytes"),
        (unknown_keys, "factory.slotz: is unknown: did you mean slots?"),
    ],
)
async def test_rule_11_a_file_with_mistakes_changes_nothing_and_is_shown(spoil, told):
    async with a_daemon() as daemon:
        place = daemon.place
        place.put("A-1", play())
        agent = await daemon.wait_running("A-1")
        before = (await daemon.status())["daemon"]
        spoil(place)
        done = await reload(place)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{place.config}: " in done.stderr
        assert told in done.stderr
        assert "the configuration before it stays in force" in done.stderr
        after = (await daemon.status())["daemon"]
        assert told in "\n".join(after["config_mistakes"])
        assert (after["slots"], after["degraded"]) == (before["slots"], [])
        command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket), "status"]
        assert (
            f"configuration refused: {place.config}: " in (await place.run(command=command)).stdout
        )
        if place.config.is_dir():
            place.config.rmdir()
        write(place, configuration())
        assert (await reload(place)).returncode == 0
        assert await mistakes(daemon) == []
        assert (await daemon.wait_running("A-1"))["pid"] == agent["pid"]


async def test_a_file_that_nobody_writes_to_keeps_no_part_of_the_daemon_waiting():
    async with a_daemon() as daemon:
        place = daemon.place
        place.config.unlink()
        os.mkfifo(place.config)
        async with connect(place.socket) as client:
            await client.send("Reload")
            for _ in range(10):
                assert (await daemon.call("Health"))["state"] == "ok"
                await trio.sleep(0.05)
            assert await daemon.stop() == 0, "a shutdown does not wait for it either"
            await client.wait_closed()


async def test_a_hangup_signal_reloads_and_the_log_has_the_mistakes():
    async with a_daemon() as daemon:
        place = daemon.place
        write(place, configuration(factory="slots = 3"))
        daemon.signal(SIGHUP)

        async def has_three():
            return (await daemon.status())["daemon"]["slots"] == 3

        await eventually(has_three)
        unknown_keys(place)
        for _ in range(5):  # they may come together
            daemon.signal(SIGHUP)

        async def refused():
            return await mistakes(daemon)

        await eventually(refused)
        assert "configuration refused: " in place.log
        assert (await daemon.status())["daemon"]["slots"] == 3


async def test_a_reload_while_the_daemon_stops_is_refused_in_words():
    async with a_daemon(stop='grace = "30s"') as daemon:
        place = daemon.place
        place.put("A-1", play("ignore:TERM"))
        await daemon.wait_running("A-1")
        async with connect(place.socket) as client:
            await client.send("Shutdown")
            await eventually(lambda: _is_stopping(daemon))
            daemon.signal(SIGHUP)
            done = await reload(place)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.startswith("factoryctl: factoryd is stopping: it reads the config")
        daemon.signal(SIGTERM)  # no need to wait for the grace
        assert await daemon.wait() == 0
        assert of_kind(await _facts(place), "configuration-loaded")[1:] == []


async def _is_stopping(daemon):
    return (await daemon.status())["daemon"]["state"] == "stopping"


async def _facts(place):
    async with place.daemon() as next_one:
        facts = await next_one.call("Events", limit=10_000)
    own = [fact["seq"] for fact in facts["facts"] if fact["kind"] == "daemon-started"][-1]
    return {"facts": [fact for fact in facts["facts"] if fact["seq"] < own]}


async def test_a_program_reads_the_outcome_as_a_document():
    async with a_daemon() as daemon:
        write(daemon.place, configuration(factory='containment = "subreaper"'))
        reply = await daemon.call("Reload")
        assert reply == {
            "changed": ["factory.containment"],
            "restart": ["factory.containment"],
            "mistakes": [],
        }


# ---------------------------------------------------------------------------- what it applies to


async def test_slots_go_up_at_once_and_down_as_issues_end():
    async with a_daemon(factory="slots = 1") as daemon:
        place = daemon.place
        for n in range(4):
            place.put(f"A-{n}", UNTIL_GO, priority=str(n + 1))
        await daemon.wait_running("A-0")
        assert [k for k, one in (await states(daemon)).items() if one == "running"] == ["A-0"]
        write(place, configuration(factory="slots = 2"))
        await reload(place)
        await daemon.wait_running("A-1")
        write(place, configuration(factory="slots = 1"))
        await reload(place)
        seen = await daemon.status()
        assert (seen["daemon"]["slots"], seen["daemon"]["free_slots"]) == (1, 0)
        running = [one["key"] for one in seen["issues"] if one["state"] == "running"]
        assert running == ["A-0", "A-1"]
        most = list[int]()
        (place.root / "go").touch()
        for n in range(4):
            await daemon.wait_issue(f"A-{n}", "done")
        facts = (await daemon.call("Events", limit=10_000))["facts"]
        for fact in facts:
            last = most[-1] if most else 0
            step = {"attempt-started": 1, "attempt-ended": -1}.get(fact["kind"], 0)
            most.append(last + step)
        assert max(most) == 2
        ends = [n for n, fact in enumerate(facts) if fact["kind"] == "attempt-ended"]
        assert max(most[ends[0] :]) == 1, "nobody begins until there is a free slot again"


async def test_an_escalated_issue_is_dispatched_once_there_is_a_route():
    with a_place() as place:
        nowhere = configuration().replace("default = true", 'label = "nowhere"')
        write(place, nowhere)
        async with place.daemon() as daemon:
            place.put("A-1", "exit 0")
            reason = (await daemon.wait_issue("A-1", "escalated"))["reason"]
            assert reason.startswith("no route")
            write(place, configuration())
            assert (await reload(place)).stdout == "routes\n"
            await daemon.wait_issue("A-1", "done")


async def test_an_attempt_ends_as_it_began_whatever_is_loaded_meanwhile():
    """Its agent, its recipe and its repository are no longer in the file when its second run begins."""
    script = f"{UNTIL_GO}[ $FACTORY_RUN != $(cat ../first || echo $FACTORY_RUN) ] && exit 0\n"
    script += "echo $FACTORY_RUN > ../first; exit 3"
    async with a_daemon(resume='max_resumes = 1\ndelay = "1ms"') as daemon:
        place = daemon.place
        place.put("A-1", script)
        await daemon.wait_running("A-1")
        other = configuration().replace("worker", "other").replace("recipes.one", "recipes.two")
        other = other.replace('"one"', '"two"').replace("repos.here", "repos.there")
        write(place, other.replace('"here"', '"there"'))
        assert (await reload(place)).returncode == 0
        (place.root / "go").touch()
        (agent,) = (await daemon.wait_issue("A-1", "done"))["agents"]
        assert (agent["role"], agent["resumes"], agent["exit"]) == ("worker", 1, 0)
        place.put("A-2", "exit 0")
        (agent,) = (await daemon.wait_issue("A-2", "done"))["agents"]
        assert agent["role"] == "other"


MORE = '\n[[sources]]\nkind = "folder"\npath = "more"\n'


async def test_a_source_comes_and_goes_while_its_issue_runs():
    async with a_daemon() as daemon:
        place = daemon.place
        (place.root / "more" / "ready").mkdir(parents=True)
        write(place, configuration() + MORE)
        assert (await reload(place)).stdout == "sources\n"
        names = [one["name"] for one in (await daemon.status())["sources"]]
        assert names == ["issues", "more"]
        issues, place.ready = place.ready, place.root / "more" / "ready"
        place.put("B-1", UNTIL_GO)
        agent = await daemon.wait_running("B-1")
        write(place, configuration())
        assert (await reload(place)).stdout == "sources\n"
        seen = {one["name"]: one["state"] for one in (await daemon.status())["sources"]}
        assert seen == {"issues": "ok", "more": "leaving"}
        left = place.put("B-2", "exit 0")
        (place.root / "go").touch()
        (after,) = (await daemon.wait_issue("B-1", "done"))["agents"]
        assert after["run"] == agent["run"]
        await place.wait_for((place.root / "more" / "done" / "B-1.md").exists)

        async def is_gone():
            return [one["name"] for one in (await daemon.status())["sources"]] == ["issues"]

        await eventually(is_gone)
        place.ready = issues
        place.put("A-1", "exit 0")
        await daemon.wait_issue("A-1", "done")
        assert left.exists(), "it is not asked for issues any more"
        assert "B-2" not in await states(daemon)


async def test_an_issue_whose_source_is_missing_at_the_start_waits_for_it_and_blocks_nobody():
    with a_place(factory="slots = 1") as place:
        write(place, configuration(factory="slots = 1") + MORE)
        (place.root / "more" / "ready").mkdir(parents=True)
        issues, place.ready = place.ready, place.root / "more" / "ready"
        async with place.daemon() as daemon:
            place.put("B-1", UNTIL_GO)
            agent = await daemon.wait_running("B-1")
            daemon.process.kill()
            await daemon.wait()
        write(place, configuration(factory="slots = 1"))
        async with place.daemon() as daemon:
            assert (await daemon.wait_running("B-1"))["pid"] == agent["pid"]
            (place.root / "go").touch()
            shown = await daemon.wait_issue("B-1", "done", when=lambda one: one["reason"])
            assert "the configuration no longer has the source 'more'" in shown["reason"]
            place.ready = issues
            place.put("A-1", "exit 0")
            await daemon.wait_issue("A-1", "done")
        done = await place.run("--once")
        assert done.returncode == 1, "an issue is left for a person"
        async with place.daemon() as daemon:
            write(place, configuration(factory="slots = 1") + MORE)
            assert (await reload(place)).returncode == 0
            await place.wait_for((place.root / "more" / "done" / "B-1.md").exists)


WATCHER = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.socket(socket.AF_UNIX) as caller:
    caller.connect(sys.argv[2])
    caller.sendall(b'{"method":"io.factoryd.Control.Watch","more":true}' + bytes(1))
    data = b""
    while b'"error"' not in data:
        data = caller.recv(1 << 20)
        print("error" if b'"error"' in data else "picture", flush=True)
    print(data)
"""


async def test_who_loses_a_right_hears_of_it_and_who_gains_one_has_it():
    async with a_daemon(access='readers = ["nobody"]') as daemon:
        place = daemon.place
        uid = str(pwd.getpwnam("nobody").pw_uid)
        watcher = await trio.lowlevel.open_process(
            [sys.executable, "-c", WATCHER, uid, str(place.socket)], stdout=subprocess.PIPE
        )
        assert watcher.stdout is not None
        try:
            with trio.fail_after(15):
                assert (await watcher.stdout.receive_some()).startswith(b"picture")
                write(place, configuration(access='readers = ["games"]'))
                assert (await reload(place)).returncode == 0
                assert "error" not in await ask_as("games", place.socket, "Status")
                reply = await ask_as("nobody", place.socket, "Status")
                assert reply["error"] == DENIED
                place.put("A-1", "exit 0")  # there is something to see, for others
                said = b""
                while part := await watcher.stdout.receive_some():
                    said += part
            assert DENIED.encode() in said
        finally:
            watcher.kill()
            with trio.CancelScope(shield=True):
                await watcher.stdout.aclose()
                await watcher.wait()
