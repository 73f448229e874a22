"""The daemon as a program: how it starts, what stops it from starting, and how it ends."""

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import contextmanager
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM

import pytest
import trio

from tests.system.daemons import a_daemon, a_place, connect, eventually, play

pytestmark = pytest.mark.system

BROKEN = """
[factory]
slots = 0
slotz = 5

[dispatch]
error_cooldown = "soon"

[[sources]]
kind = "folder"
path = "nowhere"

[[routes]]
default = true
repo = "demo"
recipe = "pair"

[recipes.pair]
stages = [["ghost"]]
"""
BROKEN_KEYS = [
    "factory.slots",
    "factory.slotz",
    "dispatch.error_cooldown",
    "sources[0].path",
    "routes[0].repo",
    "recipes.pair.stages[0][0]",
]


# ------------------------------------------------------------------------------------- not started


async def test_all_mistakes_of_a_configuration_are_told_at_once_and_nothing_is_made():
    with a_place() as place:
        place.config.write_text(BROKEN)
        run = await place.run()
        check = [sys.executable, "-m", "factoryd", "check-config", "--config", str(place.config)]
        checked = await place.run(command=check)
        assert (run.returncode, checked.returncode) == (2, 2)
        assert run.stderr == checked.stderr
        lines = run.stderr.splitlines()
        for key in BROKEN_KEYS:
            assert any(line.startswith(f"{place.config}: {key}: ") for line in lines), key
        assert len(lines) == len(BROKEN_KEYS)
        assert not place.state.exists()
        assert not place.runtime.exists()


async def test_a_second_daemon_is_refused_with_the_pid_of_the_first():
    async with a_daemon() as daemon:
        place = daemon.place
        config = ("--config", str(place.config))
        for directories in (
            ("--state-dir", str(place.state), "--runtime-dir", str(place.runtime)),
            ("--state-dir", str(place.state), "--runtime-dir", str(place.root / "r2")),
            ("--state-dir", str(place.root / "s2"), "--runtime-dir", str(place.runtime)),
        ):
            command = [sys.executable, "-m", "factoryd", "run", *config, *directories]
            second = await place.run(command=command)
            assert second.returncode == 1
            assert second.stderr.count("\n") == 1
            assert f"pid {daemon.pid}" in second.stderr
        assert (await daemon.call("Health"))["state"] == "ok"


async def test_one_directory_may_serve_as_state_and_as_runtime_directory():
    with a_place() as place:
        place.runtime = place.state
        place.socket = place.state / "control.sock"
        async with place.daemon() as daemon:
            assert (await daemon.call("Health"))["state"] == "ok"


def spoil_header(path):
    path.write_bytes(b"This is no database, whatever its name says. " * 100)


def spoil_pages(path):
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def spoil_version(path):
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def spoil_fact(path):
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM snapshot")
        database.execute('UPDATE fact SET body = \'{"type":"never-heard-of"}\' WHERE seq = 2')
    database.close()


@pytest.mark.parametrize("spoil", [spoil_header, spoil_pages, spoil_version, spoil_fact])
async def test_a_ledger_that_cannot_be_read_stops_the_start_and_stays_as_it_is(spoil):
    with a_place() as place:
        place.put("A-1", "exit 0")
        assert (await place.run("--once")).returncode == 0
        ledger = place.state / "ledger.sqlite"
        spoil(ledger)
        before = ledger.read_bytes()
        run = await place.run()
        assert run.returncode == 1
        assert run.stderr.count("\n") == 1, run.stderr
        assert "not started" in run.stderr
        assert str(ledger) in run.stderr
        assert ledger.read_bytes() == before


@pytest.mark.parametrize("option", ["--runtime-dir", "--state-dir"])
async def test_a_directory_that_cannot_be_made_is_one_sentence(option):
    with a_place() as place:
        for bad in ("/proc/nope/here", "/dev/null/here", str(place.config)):
            run = await place.run(option, bad)
            assert run.returncode == 2
            assert run.stderr.count("\n") == 1, run.stderr
            assert bad in run.stderr


async def test_a_runtime_directory_too_deep_for_a_socket_is_one_sentence():
    with a_place() as place:
        run = await place.run("--runtime-dir", str(place.root / ("x" * 120)))
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1, run.stderr
        assert "--runtime-dir" in run.stderr


async def test_a_lock_that_cannot_be_had_is_one_sentence():
    with a_place() as place:
        (place.state / "lock").mkdir(parents=True)
        place.state.chmod(0o700)
        run = await place.run()
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1, run.stderr
        assert f"{place.state}/lock" in run.stderr


# --------------------------------------------------------------------------------------- dry run


BEATS = {"r", "r/heartbeat", "r/.heartbeat.new"}
"""What a daemon that lives changes at each heartbeat."""


def picture(root, *, without=frozenset()):
    """Return everything below a directory: names, kinds, sizes, times, contents."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        key = str(path.relative_to(root))
        if key in without:
            continue
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[key] = (
            status.st_mode,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
            content,
        )
    return found


async def test_a_dry_run_has_zero_side_effects():
    """Promise 11: before the first start, after a good end, and after a killed daemon."""
    with a_place() as place:
        place.put("A-1", "touch ../started")
        (place.ready / "bad.md").write_text("no front matter")
        before = picture(place.root)
        first = await place.run("--dry-run")
        assert picture(place.root) == before
        assert first.returncode == 0
        assert "A-1: would be dispatched: repo here, recipe one" in first.stdout
        assert "bad.md" in first.stdout

        (place.ready / "bad.md").unlink()
        assert (await place.run("--once")).returncode == 0
        place.put("A-2", "exit 0")
        before = picture(place.root)
        second = await place.run("--dry-run")
        assert picture(place.root) == before
        assert "A-2: would be dispatched" in second.stdout

        async with place.daemon() as daemon:
            place.put("A-3", play())
            agent = await daemon.wait_running("A-3")

            async def is_quiet():
                kinds = [*await daemon.kinds_of("A-2"), *await daemon.kinds_of("A-3")]
                return kinds.count("issue-left-ready") == 2 and "outcome-written" in kinds

            await eventually(is_quiet)
            run = place.state / "runs" / "A-3" / agent["run"]
            size, followed = (run / "output").stat().st_size, run / "followed"
            await place.wait_for(lambda: followed.exists() and int(followed.read_text()) == size)
            before = picture(place.root, without=BEATS)
            third = await place.run("--dry-run")
            assert third.returncode == 0
            assert "A-3" not in third.stdout
            assert picture(place.root, without=BEATS) == before
            daemon.signal(SIGKILL)
            await daemon.wait()
            before = picture(place.root)
            assert (await place.run("--dry-run")).returncode == 0
            assert picture(place.root) == before
        async with place.daemon() as daemon:
            await daemon.call("Kill", all=True)


# ------------------------------------------------------------------------------ once, iterations


async def test_once_ends_when_all_is_done_and_says_by_its_status_whether_all_went_well():
    with a_place(dispatch="max_attempts = 2") as place:
        assert (await place.run("--once")).returncode == 0
        place.put("A-1", "exit 0")
        place.put("A-2", "[ -e ../again ] || { touch ../again; exit 1; }")
        assert (await place.run("--once")).returncode == 0
        done = sorted(path.name for path in (place.root / "issues" / "done").glob("*.md"))
        assert done == ["A-1.md", "A-2.md"]
        place.put("A-3", "exit 1")
        assert (await place.run("--once")).returncode == 1
        assert (place.root / "issues" / "failed" / "A-3.md").exists()
        assert (await place.run("--once")).returncode == 0  # parked before: nothing new


async def test_once_does_not_say_all_is_well_when_a_source_could_not_be_read():
    with a_place() as place:
        ready = place.root / "issues" / "ready"
        if ready.is_dir():
            ready.rmdir()
        ready.write_text("not a directory")
        assert (await place.run("--once")).returncode == 1


@pytest.mark.parametrize("count", ["-3", "0", "1", "99"])
async def test_iterations_are_clamped_and_then_drained(count):
    with a_place(factory='poll_interval = "250ms"') as place:
        place.put("A-1", "sleep 0.1")
        began = trio.current_time()
        assert (await place.run("--iterations", count)).returncode == 0
        assert trio.current_time() - began < 10  # 99 would take 25 s
        assert (place.root / "issues" / "done" / "A-1.md").exists()


async def test_once_and_iterations_exclude_each_other():
    with a_place() as place:
        assert (await place.run("--once", "--iterations", "2")).returncode == 2


# ------------------------------------------------------------------------------------------ ending


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
async def test_a_signal_ends_the_daemon_in_good_order_with_no_survivor(number):
    async with a_daemon() as daemon:
        for key in ("A-1", "A-2"):
            daemon.place.put(key, play("child:3", "setsid", "double-fork", "escape"))
            await daemon.wait_running(key)
        assert len(daemon.place.survivors()) > 10
        assert await daemon.stop(number) == 0
        assert "stopped, clean: True" in daemon.place.log
        assert "Traceback" not in daemon.place.log
        assert not (daemon.place.runtime / "heartbeat").exists()


async def test_a_second_signal_skips_the_grace():
    async with a_daemon(stop='grace = "30s"') as daemon:
        for key in ("A-1", "A-2"):
            daemon.place.put(key, play("ignore:TERM", "ignore:INT"))
            await daemon.wait_running(key)
        daemon.signal(SIGTERM)
        await daemon.place.wait_for(lambda: "stopping: SIGTERM" in daemon.place.log)
        assert daemon.place.survivors()
        assert await daemon.stop() == 0
        assert "stopping at once: SIGTERM" in daemon.place.log


async def test_three_looks_that_fail_in_a_row_end_the_loop_with_status_1_and_its_agents():
    with a_place(factory='poll_interval = "250ms"') as place:
        place.put("A-1", play("child:2"))
        async with place.daemon() as first:
            await first.wait_running("A-1")
            first.signal(SIGKILL)
            await first.wait()
        assert place.survivors()
        place.ready.rename(place.root / "elsewhere")
        place.ready.write_text("not a directory")
        daemon = await place.start("--iterations", "5")
        try:
            assert await daemon.wait() == 1
        finally:
            await end(daemon)
        assert place.survivors() == []
        assert "stopping: 3 iterations in a row failed" in place.log
        assert "Traceback" not in place.log


async def test_many_signals_are_one_shutdown():
    with a_place(stop='grace = "30s"') as place:
        place.put("A-1", play("ignore:TERM", "ignore:INT", "child:3"))
        async with place.daemon() as daemon:
            await daemon.wait_running("A-1")
            daemon.signal(SIGSTOP)  # so that it has not ended before the last of them comes
            look = os.WSTOPPED | os.WNOHANG
            await place.wait_for(lambda: os.waitid(os.P_PID, daemon.pid, look))
            for number in (SIGTERM, SIGINT, SIGTERM, SIGINT, SIGTERM):
                daemon.signal(number)
            daemon.signal(SIGCONT)
            assert await daemon.wait() == 0
        assert place.survivors() == []
        assert place.log.count("stopped, clean: True") == 1
        assert place.log.count(" stopping: SIG") == 1
        assert "Traceback" not in place.log


async def test_a_stop_that_leaves_a_process_has_status_1():
    wait = "echo up; until [ -e ../go ]; do sleep 0.05; done"
    with a_place(agents='[protect]\ncommands = ["keepme"]') as place:
        place.put("A-1", f"ln -s /bin/sh ../keepme; ../keepme -c '{wait}' & sleep 600")
        daemon = await place.start()
        try:
            await daemon.wait_running("A-1")
            daemon.signal(SIGTERM)
            assert await daemon.wait() == 1
        finally:
            await end(daemon)
        assert "stopped, clean: False" in place.log
        (place.root / "go").touch()
        await place.wait_for(lambda: not place.survivors())


DEAF = """
import signal, sys
from factoryd.__main__ import main

status = main(sys.argv[1:])
ours = [one for one in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(one) not in (signal.SIG_DFL, signal.default_int_handler)]
print("handlers are left:", ours)
sys.exit(status)
"""
"""A daemon that says afterwards who would act on a signal."""


async def test_the_handlers_of_signals_are_gone_when_the_daemon_has_ended(monkeypatch):
    with a_place() as place:
        arguments = place.command()[3:]
        monkeypatch.setattr(place, "command", lambda: [sys.executable, "-c", DEAF, *arguments])
        async with place.daemon() as daemon:
            assert await daemon.stop() == 0
        assert "handlers are left: []" in place.log


async def end(daemon):
    """End a daemon that may have ended."""
    with trio.CancelScope(shield=True):
        if daemon.process.returncode is None:
            daemon.process.kill()
        await daemon.process.wait()


async def test_an_issue_that_was_stopped_with_the_daemon_is_worked_on_by_the_next():
    with a_place() as place:
        place.put("A-1", "[ -e ../again ] && exit 0; touch ../again; echo up; sleep 600")
        async with place.daemon() as daemon:
            await daemon.wait_running("A-1")
        async with place.daemon() as daemon:
            await daemon.wait_issue("A-1", "done")


async def test_what_a_daemon_makes_is_for_the_right_eyes_only():
    async with a_daemon() as daemon:
        place = daemon.place
        modes = {
            path: stat.S_IMODE(path.stat().st_mode)
            for path in (place.state, place.runtime, place.socket, place.state / "ledger.sqlite")
        }
        assert list(modes.values()) == [0o700, 0o755, 0o666, 0o600]
        assert stat.S_IMODE((place.runtime / "heartbeat").stat().st_mode) == 0o644


async def test_a_socket_that_a_dead_daemon_left_is_replaced():
    with a_place() as place:
        place.runtime.mkdir()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(place.socket))
        async with place.daemon() as daemon:
            assert (await daemon.call("Health"))["pid"] == daemon.pid


# ---------------------------------------------------------------------------------- sudden death


async def test_a_killed_daemon_loses_no_agent():
    """Promise 6: what runs is adopted, what has ended is known, nothing is started twice."""
    wait = "until [ -e ../go ]; do sleep 0.02; done"
    with a_place() as place:
        place.put("A-1", f"echo start >>../starts-1; echo up; {wait}; echo end; exit 0")
        place.put("A-2", f"echo start >>../starts-2; echo up; {wait}; exit 7")
        place.put("A-3", f"echo start >>../starts-3; echo up; {wait}; sleep 0.5; exit 9")
        async with place.daemon() as first:
            agents = {key: await first.wait_running(key) for key in ("A-1", "A-2", "A-3")}
            first.signal(SIGKILL)
            await first.wait()
            assert len(place.survivors()) >= 3
            (place.root / "go").touch()
            status = place.state / "runs" / "A-2" / agents["A-2"]["run"] / "status"
            await place.wait_for(status.exists)  # ended while nobody looked
        async with place.daemon() as second:
            done = await second.wait_issue("A-1", "done")
            failed = await second.wait_issue("A-2", "parked")
            last = await second.wait_issue("A-3", "parked")
            assert (await second.status())["daemon"]["adopted_runs"] == 3
            for key, issue, code in (("A-1", done, 0), ("A-2", failed, 7), ("A-3", last, 9)):
                (agent,) = issue["agents"]
                assert (agent["run"], agent["exit"]) == (agents[key]["run"], code)
                assert (place.root / f"starts-{key[-1]}").read_text() == "start\n"
                kinds = await second.kinds_of(key)
                assert kinds.count("run-starting") == kinds.count("run-emptied") == 1
            logs = await second.call("Logs", target="A-1")
            assert [line["text"] for line in logs["lines"]] == ["up", "end"]


async def test_a_killed_daemons_agents_can_be_killed_through_the_next():
    with a_place() as place:
        place.put("A-1", play("child:2", "double-fork"))
        async with place.daemon() as first:
            agent = await first.wait_running("A-1")
            first.signal(SIGKILL)
            await first.wait()
        async with place.daemon() as second:
            adopted = await second.wait_running("A-1")
            assert (adopted["pid"], adopted["run"]) == (agent["pid"], agent["run"])
            reply = await second.call("Kill", targets=["A-1"])
            assert [one["emptied"] for one in reply["agents"]] == [True]
            assert place.survivors() == []


# -------------------------------------------------------------------------------------- disk full


@contextmanager
def small_disk(path):
    """Mount a disk of 2 MB; yields a function that fills it and returns one that frees it."""
    path.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", "size=2m,mode=0700", "factoryd-test", str(path)]
    subprocess.run(["mount", *options], check=True)
    try:
        yield lambda: fill(path / "filler")
    finally:
        subprocess.run(["umount", str(path)], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return path.unlink


async def test_a_full_disk_stops_dispatching_and_loses_no_fact():
    with a_place() as place, small_disk(place.state) as fill_disk:
        wait = "until [ -e ../go ]; do sleep 0.02; done"
        async with place.daemon() as daemon:
            place.put("A-1", f"echo up; {wait}; exit 0")
            await daemon.wait_running("A-1")
            await daemon.wait_fact("A-1", "issue-left-ready")
            known = (await daemon.call("Events"))["facts"]
            free_disk = fill_disk()
            place.put("A-2", "touch ../started")
            await place.wait_for(lambda: "facts cannot be written" in place.log)
            (place.root / "go").touch()
            health = await daemon.call("Health")
            assert (health["state"], health["degraded"]) == ("degraded", ["ledger"])
            assert (await daemon.status())["daemon"]["degraded"] == ["ledger"]
            assert (await daemon.call("Events"))["facts"] == known
            async with connect(place.socket) as client:
                await client.send("Kill", {"targets": ["A-1"]})
                reply = await client.receive()
                assert reply["error"].endswith(".Unavailable")
            assert not (place.root / "started").exists()
            free_disk()
            await daemon.wait_issue("A-2", "done")
            await daemon.wait_issue("A-1", "done")
            assert (await daemon.call("Health"))["state"] == "ok"
            facts = (await daemon.call("Events"))["facts"]
            assert facts[: len(known)] == known
        assert place.log.count("facts cannot be written") == 1
        assert "Traceback" not in place.log
        async with place.daemon() as again:
            assert (await again.call("Events"))["facts"][: len(facts)] == facts


async def test_a_full_disk_keeps_no_daemon_from_stopping():
    with a_place() as place, small_disk(place.state) as fill_disk:
        async with place.daemon() as daemon:
            place.put("A-1", play("child:2"))
            await daemon.wait_running("A-1")
            free_disk = fill_disk()
            place.put("A-2", "exit 0")
            await place.wait_for(lambda: "facts cannot be written" in place.log)
            assert await daemon.stop() == 1
            assert "the last facts could not be written" in place.log
            free_disk()
        async with place.daemon() as again:
            await again.wait_issue("A-2", "done")
            await again.call("Kill", all=True)


async def test_a_daemon_that_starts_on_a_full_disk_can_be_stopped():
    with a_place() as place, small_disk(place.state) as fill_disk:
        async with place.daemon():
            pass
        free_disk = fill_disk()
        daemon = await place.start()
        try:
            await place.wait_for(
                lambda: daemon.process.poll() is not None or "facts cannot be written" in place.log
            )
            if daemon.process.returncode is None:
                daemon.signal(SIGTERM)
            assert await daemon.wait() == 1
            assert "Traceback" not in place.log
        finally:
            if daemon.process.returncode is None:
                daemon.process.kill()
            await daemon.process.wait()
            free_disk()
