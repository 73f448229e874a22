"""SIGTERM when nobody reckons with it: before the first fact, after the last word."""

import sys
from signal import SIGTERM

import pytest

from tests.system.daemons import a_place, play

pytestmark = pytest.mark.system

FULL = """
import sys
from factoryd.__main__ import main
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.errors import LedgerUnavailable

def refuse(store, entries):
    raise LedgerUnavailable("/state: the disk is full")

SqliteStore.append = refuse
sys.exit(main(sys.argv[1:]))
"""
"""A daemon whose ledger can be opened, and not one fact written to it."""

LATE = """
import os, signal, sys, threading
from factoryd.__main__ import main
from factoryd.adapters.heartbeat_file import AtomicHeartbeatFile
from factoryd.daemon import Daemon

heard, stop, remove = threading.Event(), Daemon.stop, AtomicHeartbeatFile.remove

def stop_and_tell(daemon, reason, **how):
    stop(daemon, reason, **how)
    heard.set()

def remove_and_wait(file):
    remove(file)
    heard.clear()
    os.kill(os.getpid(), signal.SIGTERM)
    heard.wait(10)

Daemon.stop, AtomicHeartbeatFile.remove = stop_and_tell, remove_and_wait
sys.exit(main(sys.argv[1:]))
"""
"""A daemon that gets SIGTERM when its heartbeat is gone, which is the last that it does."""


@pytest.fixture
def program(request, monkeypatch):
    with a_place() as place:
        code, arguments = request.param, place.command()[3:]
        monkeypatch.setattr(place, "command", lambda: [sys.executable, "-c", code, *arguments])
        yield place


@pytest.mark.parametrize("program", [FULL], indirect=True, ids=["full"])
async def test_a_daemon_that_cannot_write_its_first_fact_can_be_stopped(program):
    daemon = await program.start()
    try:
        await program.wait_for(lambda: "facts cannot be written" in program.log)
        daemon.signal(SIGTERM)
        assert await daemon.wait() == 1
    finally:
        if daemon.process.returncode is None:
            daemon.process.kill()
        await daemon.process.wait()
    assert "the disk is full" in program.log
    assert "Traceback" not in program.log


@pytest.mark.parametrize("program", [LATE], indirect=True, ids=["late"])
async def test_a_signal_after_the_heartbeat_is_gone_ends_the_agents_that_were_to_be_kept(program):
    async with program.daemon() as daemon:
        program.put("A-1", play("child:2"))
        await daemon.wait_running("A-1")
        await daemon.call("Shutdown", keep_agents=True)
        assert await daemon.wait() == 0
        assert program.survivors() == []
        assert not (program.runtime / "heartbeat").exists()
