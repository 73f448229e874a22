"""Checks: where a service's process trees live, and that nothing leaves them."""

import os
import select
import subprocess
from pathlib import Path

from tests.vm.guest.daemons import Daemon, a_daemon
from tests.vm.guest.units import User, cgroup_of, processes, run
from tests.vm.guest.waiting import WITHIN_S, wait_until

SLEEP = "echo up; exec sleep 600"

ESCAPE = """
setsid sleep 600 &
(setsid sh -c 'sleep 600 & exec sleep 600' &)
env -i setsid -f sleep 600
(trap '' TERM; sleep 600 & wait; sleep 600) &
echo up
wait
"""
"""A session of its own, two that were forked twice, an empty environment, one deaf to SIGTERM."""


def check_leaf(daemon: Daemon) -> None:
    """Assert that daemon and agent are each in their own cgroup below the unit's."""
    daemon.put("VM-1", SLEEP)
    agent = daemon.wait_running("VM-1")
    cgroup = daemon.unit.cgroup
    assert daemon.status()["daemon"]["containment"] == "cgroup"
    assert cgroup_of(daemon.unit.main_pid) == cgroup / "daemon"
    assert cgroup_of(agent["pid"]) == cgroup / "agents" / "VM-1" / agent["run"]


def a_delegated_unit_of_root_contains_its_agents_in_cgroups() -> None:
    with a_daemon("root") as daemon:
        check_leaf(daemon)
        assert "containment cgroup" in daemon.factoryctl("status").stdout


def a_delegated_unit_of_a_user_contains_its_agents_in_cgroups() -> None:
    make_user("worker")
    with a_daemon("user", account="worker", User="worker") as daemon:
        check_leaf(daemon)
        owner = Path("/proc", str(daemon.issue("VM-1")["agents"][0]["pid"])).owner()
        assert owner == "worker"


def a_service_of_a_users_own_systemd_contains_its_agents_in_cgroups() -> None:
    make_user("person")
    run("loginctl", "enable-linger", "person")
    user = User("person")
    assert user.account is not None
    private = Path("/run/user", str(user.account.pw_uid), "systemd/private")
    wait_until(private.exists, "the user's systemd does not answer")
    with a_daemon("own", account="person", user=user) as daemon:
        check_leaf(daemon)
        assert f"user@{user.account.pw_uid}.service" in str(daemon.unit.cgroup)


def an_escaped_tree_is_killed_to_the_last_process_and_its_cgroups_are_gone() -> None:
    with a_daemon("escape") as daemon:
        daemon.put("VM-1", ESCAPE)
        agent = daemon.wait_running("VM-1")
        issue = daemon.unit.cgroup / "agents" / "VM-1"
        wait_until(lambda: len(processes(issue)) >= 8, f"not all there: {processes(issue)}")
        tree = [os.pidfd_open(pid) for pid in processes(issue)]
        report = daemon.kill("VM-1")
        assert report["emptied"], report
        assert report["survivors"] == 0, report
        assert [fd for fd in tree if is_alive(fd)] == []
        assert not (issue / agent["run"]).exists()
        assert not issue.exists()
        for fd in tree:
            os.close(fd)


def is_alive(pidfd: int) -> bool:
    """Say whether a process does not end; one that was killed may take a moment."""
    return not select.select([pidfd], [], [], WITHIN_S)[0]


def make_user(name: str) -> None:
    """Make an account with a home."""
    subprocess.run(["useradd", "--create-home", name], check=True)
