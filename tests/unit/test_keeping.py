"""A daemon that stops for the next one: what it leaves running, and what it still ends."""

import logging
import os
import sys

import pytest
import trio

from factoryd import __main__ as program
from factoryd.core.errors import KEEP_AGENTS_STATUS
from factoryd.core.events import RunStarting
from factoryd.core.model import IssueState
from tests.fakes.factory import Daemon
from tests.fakes.trees import FakeTree, Program
from tests.unit.configs import SMALL
from tests.unit.factories import IMPL, REVIEW, configure, factory

__all__ = ["factory"]

S = IssueState
DONE, CRASH, FOREVER = Program(status=0), Program(status=1), Program()


@pytest.fixture
def closed(monkeypatch):
    """The trees whose descriptors have been released."""
    trees, close = [], FakeTree.close

    def note(tree):
        trees.append(tree.place.agent)
        close(tree)

    monkeypatch.setattr(FakeTree, "close", note)
    return trees


async def test_agents_that_are_kept_go_on_and_the_next_daemon_has_them(
    autojump_clock, factory, closed
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, after_s=100.0)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        daemon.follower.write(IMPL, 10)
        daemon.keep_agents()
    assert factory.left() == [IMPL]
    assert closed == [IMPL]
    assert daemon.runner.live == {}
    assert factory.story("AR-1")[-1] == "run-started", "for the ledger it runs"
    async with factory.daemon() as daemon:
        await trio.testing.wait_all_tasks_blocked()
        (live,) = daemon.runner.live.values()
        assert live.offset == 10, "its output goes on where it was passed on last"
        await daemon.wait_state("AR-1", S.DONE)
    assert factory.script.started == [IMPL, REVIEW]
    assert len(factory.of_kind(RunStarting)) == 2, "nothing was dispatched twice"
    assert daemon.record("AR-1").attempt == 1


async def test_what_is_being_killed_is_ended_even_when_agents_are_kept(autojump_clock, factory):
    factory.put("AR-1")
    factory.put("AR-2")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True)]
    factory.script.parts["ar-2-impl"] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL, "ar-2-impl")
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        daemon.keep_agents()
    assert factory.left() == ["ar-2-impl"]


async def test_what_an_ended_agent_has_left_is_emptied_even_when_agents_are_kept(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=0, children=3, ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: "run-exited" in factory.story("AR-1"))
        daemon.keep_agents()
    assert factory.left() == []
    assert factory.story("AR-1")[-1] == "run-emptied"


async def test_an_agent_that_is_just_being_started_is_kept_too(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        start = daemon.trees.start

        async def start_slowly(place, command):
            daemon.keep_agents()
            await trio.sleep(5)
            return await start(place, command)

        monkeypatch.setattr(daemon.trees, "start", start_slowly)
        await daemon.wait_for(lambda: "run-started" in factory.story("AR-1"))
    assert factory.left() == [IMPL]
    assert factory.story("AR-1")[-1] == "run-started"


async def test_a_daemon_that_is_to_keep_agents_before_it_has_taken_them_over_keeps_them(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    daemon = Daemon(factory, factory.config)
    adopt = daemon.trees.adopt

    async def adopt_and_stop(place, identity):
        tree = await adopt(place, identity)
        daemon.work.cancel(reason="the next daemon goes on")
        return tree

    monkeypatch.setattr(daemon.trees, "adopt", adopt_and_stop)
    daemon.kept = True
    daemon.scheduler.keep_agents(keep=True)
    await daemon.serve()
    assert factory.left() == [IMPL]
    assert factory.story("AR-1")[-1] == "run-started"


async def test_a_frozen_agent_is_kept_as_it_is(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.freeze("AR-1", "asked")
        daemon.keep_agents()
    (life,) = factory.world.lives.values()
    assert life.frozen
    async with factory.daemon() as daemon:
        await trio.sleep(10)
        assert life.frozen
        await daemon.scheduler.thaw("AR-1")
        assert not life.frozen


async def test_who_changes_their_mind_ends_the_agents_after_all(autojump_clock, factory, caplog):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        daemon.keep_agents()
        daemon.scheduler.keep_agents(keep=False)
        daemon.kept = False
    assert factory.left() == []
    assert "was left running" not in caplog.text, "their scopes have ended them"


async def test_a_time_limit_that_ends_while_nobody_looks_is_kept_by_the_next_daemon(
    autojump_clock, factory
):
    configure(factory, dispatch={"time_limit": 100.0, "max_attempts": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        daemon.keep_agents()
    await trio.sleep(200)
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.PARKED)
        assert factory.left() == []


# -------------------------------------------------------------------------------- the next daemon


@pytest.fixture
def main(monkeypatch, tmp_path):
    """`factoryd run` whose daemon has left its agents; returns its status and what it became."""

    async def serve(plan, journal):
        await trio.lowlevel.checkpoint()
        return KEEP_AGENTS_STATUS

    config = tmp_path / "factoryd.toml"
    config.write_text(SMALL.replace("[repos.demo]", '[repos.demo]\nworkspace = "none"'))
    for directory in ("issues", "demo-repo"):
        (tmp_path / directory).mkdir()
    monkeypatch.setattr(program, "serve", serve)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield lambda: program.main(["run", "--config", str(config), "--state-dir", str(tmp_path)])
    root.handlers[:] = handlers
    root.setLevel(level)


def test_without_a_service_manager_the_process_becomes_the_next_daemon(main, monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda *call: became.append(call))
    assert main() == KEEP_AGENTS_STATUS
    assert became == [(sys.executable, sys.orig_argv)]


def test_under_a_service_manager_the_status_asks_for_the_next_daemon(main, monkeypatch):
    monkeypatch.setattr(os, "execv", None)
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    assert main() == KEEP_AGENTS_STATUS


def test_a_process_that_cannot_become_the_next_daemon_says_what_to_do(main, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert main() == KEEP_AGENTS_STATUS
    assert "agents go on, start factoryd again" in capfd.readouterr().err
