"""A real daemon under a service manager's socket: what it says, and when it is true."""

import json
import socket
import time
from contextlib import contextmanager
from signal import SIGHUP, SIGTERM

import pytest
import trio

from tests.system.daemons import Client, a_place, configuration, play

pytestmark = [pytest.mark.system, pytest.mark.slow]


class Manager:
    """A service manager that writes down what it is told."""

    def __init__(self, listening):
        self._listening = listening
        self.said = []

    def hear(self):
        """Return all words so far, each as it came."""
        while True:
            try:
                self.said.append(self._listening.recv(4096).decode())
            except BlockingIOError:
                return self.said

    def count(self, word):
        return sum(one.startswith(word) for one in self.hear())


@contextmanager
def a_manager(place):
    path = place.root / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        yield Manager(listening), {"NOTIFY_SOCKET": str(path)}


async def test_ready_is_said_when_it_recovered_and_serves_then_reloading_then_stopping():
    with a_place(stop='grace = "2s"') as place, a_manager(place) as (manager, env):
        async with place.daemon() as first:
            place.put("A-1", play("ignore:TERM"))
            agent = await first.wait_running("A-1")
            first.process.kill()
            await first.wait()
        # What no run owns is ended before the daemon is ready, which takes its grace.
        stray = place.cgroup / "agents" / "S-1" / "s-1-w-stray"
        stray.mkdir(parents=True)
        sleeper = await trio.lowlevel.open_process(
            [
                "/bin/sh",
                "-c",
                f"trap : TERM; echo $$ >{stray}/cgroup.procs; while :; do sleep 1; done",
            ]
        )
        await place.wait_for((stray / "cgroup.procs").read_text)
        began = time.monotonic()
        second = await place.start(**env)
        try:
            await place.wait_for(lambda: manager.count("READY=1"))
            assert time.monotonic() - began >= 2.0
            assert not stray.exists()
            assert manager.count("EXTEND_TIMEOUT_USEC=30000000") >= 1
            async with await trio.open_unix_socket(str(place.socket)) as stream:  # at once
                status = await Client(stream).call("Status")
            assert status["daemon"]["state"] == "running"
            (issue,) = status["issues"]
            assert issue["agents"][0]["pid"] == agent["pid"]
            await place.wait_for(
                lambda: "STATUS=issues running: 1, slots free: 19" in manager.hear()
            )

            before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            place.config.write_text(configuration(factory="slots = 3"))
            second.signal(SIGHUP)
            await place.wait_for(lambda: manager.count("READY=1") == 2)
            (reloading,) = [one for one in manager.said if one.startswith("RELOADING=1\n")]
            moment_us = int(reloading.partition("MONOTONIC_USEC=")[2])
            assert before_us <= moment_us <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            ready = [n for n, one in enumerate(manager.said) if one == "READY=1"]
            assert ready[0] < manager.said.index(reloading) < ready[1]
            await place.wait_for(
                lambda: "STATUS=issues running: 1, slots free: 2" in manager.hear()
            )

            place.config.write_text("slots = 3")
            second.signal(SIGHUP)
            await place.wait_for(
                lambda: (
                    "STATUS=issues running: 1, slots free: 2, the configuration file has mistakes"
                    in manager.hear()
                )
            )
            assert manager.count("READY=1") == 3, "the daemon goes on with the old one"

            second.signal(SIGTERM)
            await place.wait_for(lambda: manager.count("STOPPING=1"))
            extended = manager.count("EXTEND_TIMEOUT_USEC")
            assert await second.wait() == 0
            assert manager.count("READY=1") == 3
            assert manager.count("EXTEND_TIMEOUT_USEC") >= extended
            assert manager.count("WATCHDOG=1") >= 3
        finally:
            second.process.kill()
            sleeper.kill()
            with trio.CancelScope(shield=True):
                await second.process.wait()
                await sleeper.wait()


async def test_the_watchdog_is_fed_in_time_and_no_more_once_a_part_hangs():
    with a_place() as place, a_manager(place) as (manager, env):
        async with place.daemon(**env, WATCHDOG_USEC="600000") as daemon:
            # A heartbeat is written every 15 s, the watchdog wants more.
            await place.wait_for(lambda: manager.count("WATCHDOG=1") >= 9)
            heartbeat = place.runtime / "heartbeat"  # written after the watchdog is fed
            await place.wait_for(lambda: json.loads(heartbeat.read_text())["progress"] >= 9)
            assert await daemon.stop() == 0
        place.put("A-1", play())
        daemon = await place.start(
            **env, WATCHDOG_USEC="600000", FACTORYD_FAULT="hang:issue-claimed"
        )
        try:
            await place.wait_for(
                lambda: "issue-claimed" in place.log or manager.count("READY=1") == 2
            )
            quiet_since, heard = time.monotonic(), manager.count("WATCHDOG=1")
            with trio.fail_after(20):
                while time.monotonic() - quiet_since < 2:
                    await trio.sleep(0.1)
                    if manager.count("WATCHDOG=1") != heard:
                        quiet_since, heard = time.monotonic(), manager.count("WATCHDOG=1")
        finally:
            daemon.process.kill()
            with trio.CancelScope(shield=True):
                await daemon.process.wait()
        async with place.daemon() as next_one:
            await next_one.wait_running("A-1")
