"""Checks: what an agent may use, where the controllers are delegated, and what is said where not."""

from contextlib import AbstractContextManager
from pathlib import Path

from tests.vm.guest.daemons import Daemon, a_daemon
from tests.vm.guest.units import CGROUPS, cgroup_of
from tests.vm.guest.waiting import wait_until

MIB = 1 << 20

IN_A_SUBGROUP = f"""
own={CGROUPS}$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "$own/daemon"
echo $$ >"$own/daemon/cgroup.procs"
echo '+cpu +memory +pids' >"$own/cgroup.subtree_control"
exec "$@"
"""
"""Does what `DelegateSubgroup=daemon` is for, where systemd is too old for it (before 254)."""

HOG = """
import os
open("culprit", "w").write(str(os.getpid()))
bytearray(256 << 20)
"""

STORM = """
import os, signal
refused = 0
for _ in range(100):
    try:
        if os.fork() == 0:
            signal.pause()
    except BlockingIOError:
        refused += 1
print("up", refused, flush=True)
signal.pause()
"""


def limited(name: str, **limits: object) -> AbstractContextManager[Daemon]:
    """Run a daemon whose service has the controllers and whose agent has these limits."""
    agent = "\n".join(f"{key} = {value!r}" for key, value in limits.items())
    if has_subgroups():
        return a_daemon(name, agent=agent, DelegateSubgroup="daemon")
    script = Path("/srv", f"{name}-in-a-subgroup")
    script.parent.mkdir(exist_ok=True)
    script.write_text(IN_A_SUBGROUP)
    return a_daemon(name, agent=agent, command=("/bin/sh", "-eu", str(script)))


def has_subgroups() -> bool:
    """Say whether this systemd knows `DelegateSubgroup=`."""
    return b"DelegateSubgroup" in Path("/usr/lib/systemd/systemd").read_bytes()


def a_run_over_its_memory_limit_is_reported_as_that_with_the_culprit() -> None:
    with limited("memory", memory_max="64M") as daemon:
        main_pid = daemon.unit.main_pid
        (daemon.work / "hog.py").write_text(HOG)
        daemon.put("VM-1", "python3 hog.py; echo no")
        issue = daemon.wait_state("VM-1", "parked")
        culprit = (daemon.work / "culprit").read_text()
        (emptied,) = daemon.facts("run-emptied", "VM-1")
        reason, receipt = emptied["reason"], emptied["receipt"]
        assert "memory" in reason, reason
        assert "python3" in reason, reason
        assert culprit in reason, reason
        assert "memory" in issue["reason"], issue
        assert receipt["oom_kills"] >= 1, receipt
        assert 48 * MIB <= receipt["peak_memory_bytes"] <= 64 * MIB, receipt
        assert emptied["report"]["emptied"], emptied
        assert daemon.unit.main_pid == main_pid


def a_fork_storm_stops_at_its_limit_and_the_daemon_is_fine() -> None:
    with limited("storm", pids_max=20) as daemon:
        (daemon.work / "storm.py").write_text(STORM)
        daemon.put("VM-1", "exec python3 storm.py")
        agent = daemon.wait_running("VM-1")
        leaf = cgroup_of(agent["pid"])
        assert (leaf / "pids.max").read_text() == "20\n"
        assert int((leaf / "pids.current").read_text()) == 20
        assert "max 0" not in (leaf / "pids.events").read_text()
        has_peak = (leaf / "pids.peak").exists()
        assert daemon.call("Health")[0]["state"] == "ok"
        report = daemon.kill("VM-1")
        assert (report["emptied"], report["survivors"]) == (True, 0), report
        (emptied,) = daemon.facts("run-emptied", "VM-1")
        assert not has_peak or emptied["receipt"]["peak_processes"] == 20, emptied


def the_weight_and_the_peaks_of_a_run_are_the_kernels() -> None:
    with limited("weight", cpu_weight=50, memory_max="64M", pids_max=20) as daemon:
        daemon.put("VM-1", "head -c 16M /dev/zero | tail | wc -c; echo up; sleep 600")
        leaf = cgroup_of(daemon.wait_running("VM-1")["pid"])
        assert (leaf / "cpu.weight").read_text() == "50\n"
        assert (leaf / "memory.max").read_text() == f"{64 * MIB}\n"
        assert (leaf / "memory.peak").exists()
        daemon.kill("VM-1")
        (emptied,) = daemon.facts("run-emptied", "VM-1")
        receipt = emptied["receipt"]
        assert 16 * MIB <= receipt["peak_memory_bytes"] <= 64 * MIB, receipt
        assert 4 <= receipt["peak_processes"] <= 20, receipt
        assert receipt["oom_kills"] == 0, receipt


def a_unit_without_a_subgroup_says_what_limits_need() -> None:
    with a_daemon("without", agent='memory_max = "64M"') as daemon:
        assert "memory" not in daemon.status()["daemon"]["controllers"]
        doctor = daemon.factoryctl("doctor")
        said = doctor.stdout + doctor.stderr
        assert "DelegateSubgroup" in said, said
        assert "memory" in said, said
        daemon.put("VM-1", "echo up")
        wait_until(lambda: daemon.issue("VM-1")["state"] == "done", "VM-1 is not done")
