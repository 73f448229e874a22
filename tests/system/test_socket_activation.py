"""The control socket held for the daemon, as systemd holds it: it outlives every daemon."""

import json
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from signal import SIGKILL, SIGTERM

import pytest
import trio

from tests.system.daemons import WITHIN_S, Daemon, a_place, connect, play

pytestmark = pytest.mark.system

PASS_ON = """
import os, sys
descriptor, command = int(sys.argv[1]), sys.argv[2:]
os.dup2(descriptor, 3)
if descriptor != 3:
    os.close(descriptor)
announced = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control"}
os.execve(command[0], command, {**os.environ, **announced})
"""


@contextmanager
def a_held_socket(place, name="control.sock"):
    """Listen where the daemon would; nobody answers until one is started with it."""
    place.runtime.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place.runtime / name))
        listening.listen(64)
        yield listening


@asynccontextmanager
async def a_daemon_with(place, held):
    """Run a daemon that is passed the socket; it is stopped at the end unless it has ended."""
    with (place.root / "log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", PASS_ON, str(held.fileno()), *place.command()],
            env=place.environment(),
            cwd=place.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(held.fileno(),),
        )
    daemon = Daemon(place, process)
    try:
        yield daemon
        if process.returncode is None:
            assert await daemon.stop() == 0, place.log
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def asking(place, *verb):
    """Run `factoryctl --json VERB` meanwhile; what it answers is put into the list yielded."""
    answers = []
    command = [sys.executable, "-m", "factoryctl", "--socket", str(place.socket), "--json", *verb]

    async def ask():
        answers.append(await place.run(command=command))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        yield answers


async def test_whoever_asks_while_no_daemon_runs_is_answered_by_the_next():
    with a_place() as place, a_held_socket(place) as held:
        async with connect(place.socket) as early:
            await early.send("Health")
            async with a_daemon_with(place, held):
                assert (await early.answer())["state"] == "ok"


async def test_the_socket_and_its_file_stay_as_they_are_when_the_daemon_stops():
    with a_place() as place, a_held_socket(place) as held:
        file = place.socket.stat()
        async with a_daemon_with(place, held) as daemon:
            assert (await daemon.status())["daemon"]["pid"] == daemon.pid
            assert await daemon.stop() == 0
        assert (place.socket.stat().st_ino, place.socket.stat().st_mode) == (
            file.st_ino,
            file.st_mode,
        )
        async with connect(place.socket):  # it is taken by nobody, and waits
            pass


async def test_a_status_during_a_restart_waits_and_no_agent_notices():
    with a_place() as place, a_held_socket(place) as held:
        place.put("A-1", play())
        async with a_daemon_with(place, held) as first:
            agent = await first.wait_running("A-1")
            first.signal(SIGKILL)
            await first.wait()
        async with asking(place, "status") as answers:
            await trio.sleep(0.2)
            async with a_daemon_with(place, held) as second:
                await place.wait_for(lambda: answers)
                (done,) = answers
                assert done.returncode == 0, done.stderr
                said = json.loads(done.stdout)
                assert said["daemon"]["pid"] == second.pid
                assert said["issues"][0]["agents"][0]["run"] == agent["run"]


async def test_a_question_that_a_stopping_daemon_leaves_open_is_put_to_the_next():
    with a_place() as place, a_held_socket(place) as held:
        for verb in (("status",), ("health",)):
            async with asking(place, *verb) as answers:
                with trio.fail_after(WITHIN_S):
                    await trio.lowlevel.wait_readable(held)
                held.accept()[0].close()  # as one is closed whose daemon ends
                async with a_daemon_with(place, held) as daemon:
                    await place.wait_for(lambda: answers)
                    assert answers[0].returncode == 0, answers[0].stderr
                    assert await daemon.stop(SIGTERM) == 0


async def test_a_socket_announced_to_another_process_is_not_touched():
    with a_place() as place:
        async with place.daemon(LISTEN_PID="1", LISTEN_FDS="1", LISTEN_FDNAMES="control") as daemon:
            assert (await daemon.status())["daemon"]["pid"] == daemon.pid


async def test_a_socket_of_another_place_keeps_the_daemon_from_starting_with_what_to_do():
    with a_place() as place, a_held_socket(place, "other.sock") as held:
        async with a_daemon_with(place, held) as daemon:
            assert await daemon.wait() == 2
        assert f"have it say ListenStream={place.socket}" in place.log
