"""Checks: systemd restarts a dead or hung daemon, and the next one takes all agents over."""

import os
import signal
from collections.abc import Callable
from typing import Any

from factoryd.share import shared_file
from tests.vm.guest.daemons import Daemon, a_daemon
from tests.vm.guest.limits import has_subgroups
from tests.vm.guest.units import cgroup_of, run

CONTROLLERS = {"cpu", "memory", "pids"}
KEYS = ("VM-1", "VM-2", "VM-3")
WAIT = "echo up; until [ -e finish-$FACTORY_ISSUE ]; do sleep 1; done"


def a_killed_daemon_without_a_subgroup_leaves_controllers_off_and_is_replaced() -> None:
    with a_daemon("killed") as daemon:
        control = daemon.unit.cgroup / "cgroup.subtree_control"
        assert control.read_text().split() == []
        check_adoption(daemon, lambda pid: os.kill(pid, signal.SIGKILL))
        assert control.read_text().split() == []


def a_killed_daemon_in_a_subgroup_has_controllers_on_and_is_replaced() -> None:
    with a_daemon("subgroup", DelegateSubgroup="daemon") as daemon:
        control = daemon.unit.cgroup / "cgroup.subtree_control"
        assert set(control.read_text().split()) >= CONTROLLERS
        assert set(daemon.status()["daemon"]["controllers"]) >= CONTROLLERS
        check_adoption(daemon, lambda pid: os.kill(pid, signal.SIGKILL))
        assert set(control.read_text().split()) >= CONTROLLERS
        assert set(daemon.status()["daemon"]["controllers"]) >= CONTROLLERS


def the_shipped_unit_of_a_killed_daemon_is_restarted_with_its_agents() -> None:
    run("systemd-sysusers", str(shared_file("systemd/factoryd.sysusers")))
    with a_daemon("shipped", account="factoryd", shipped=True) as daemon:
        control = daemon.unit.cgroup / "cgroup.subtree_control"
        wanted = CONTROLLERS if has_subgroups() else set()
        assert set(control.read_text().split()) >= wanted
        check_adoption(daemon, lambda pid: os.kill(pid, signal.SIGKILL))
        assert set(control.read_text().split()) >= wanted


def the_shipped_unit_goes_on_when_an_agent_is_out_of_memory() -> None:
    run("systemd-sysusers", str(shared_file("systemd/factoryd.sysusers")))
    settings = {"account": "factoryd", "shipped": True, "MemoryMax": "256M", "MemorySwapMax": "0"}
    with a_daemon("hungry", **settings) as daemon:
        daemon.put("VM-1", WAIT)
        other, main_pid = sketch(daemon.wait_running("VM-1")), daemon.unit.main_pid
        daemon.put("VM-2", "exec python3 -c 'bytearray(512 << 20)'")
        daemon.wait_state("VM-2", "parked")
        events = (daemon.unit.cgroup / "memory.events").read_text()
        assert "oom_kill 0" not in events, events
        assert sketch(daemon.issue("VM-1")["agents"][0]) == other
        assert (daemon.unit.show("ActiveState"), daemon.unit.main_pid) == ("active", main_pid)


def a_hung_daemon_is_killed_by_the_watchdog_and_replaced() -> None:
    with a_daemon("hung", WatchdogSec="20") as daemon:
        check_adoption(daemon, lambda pid: os.kill(pid, signal.SIGSTOP))
        assert "Watchdog timeout" in daemon.unit.journal()


def check_adoption(daemon: Daemon, end: Callable[[int], object]) -> None:
    """End the daemon and assert that the next one owns the very same agents, and can end them."""
    for key in KEYS:
        daemon.put(key, WAIT)
    before = {key: sketch(daemon.wait_running(key)) for key in KEYS}
    old = daemon.unit.main_pid
    end(old)
    new = daemon.unit.wait_restarted(old)
    assert {key: sketch(daemon.issue(key)["agents"][0]) for key in KEYS} == before
    shown = daemon.status()["daemon"]
    assert (shown["pid"], shown["adopted_runs"]) == (new, len(KEYS))
    assert cgroup_of(new) == daemon.unit.cgroup / "daemon"
    for key in KEYS:
        issue = daemon.issue(key)
        assert (issue["state"], issue["attempt"]) == ("running", 1), issue
    (daemon.work / "finish-VM-1").touch()
    assert daemon.wait_state("VM-1", "done")["agents"][0]["exit"] == 0
    report = daemon.kill("VM-2")
    assert (report["emptied"], report["survivors"]) == (True, 0), report
    assert all(len(daemon.facts("run-starting", key)) == 1 for key in KEYS)


def sketch(agent: Any) -> tuple[object, ...]:
    """Return what must stay the same of an agent."""
    return agent["name"], agent["run"], agent["pid"], agent["state"], agent["started_at"]
