"""Whom the kernel's log names as killed for lack of memory."""

import errno
import os

import pytest

from factoryd.adapters.kernel_log import find_victims, parse_victims
from factoryd.core.model import Victim

# As /dev/kmsg gives them on Linux 6.18, with the cgroup put into a daemon's place.
LEAF = "agents/AR-1/ar-1-impl-0c12"
MEMCG = (
    "6,421,12098848507,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,"
    "mems_allowed=0,oom_memcg=/system.slice/factoryd.service/agents/AR-1/ar-1-impl-0c12,"
    "task_memcg=/system.slice/factoryd.service/agents/AR-1/ar-1-impl-0c12,"
    "task=python,pid=32556,uid=0\n SUBSYSTEM=none\n"
)
KILLED = (
    "3,422,12098848532,-;Memory cgroup out of memory: Killed process 32556 (python) "
    "total-vm:113784kB, anon-rss:32512kB, file-rss:5716kB, shmem-rss:0kB, UID:0 pgtables:120kB "
    "oom_score_adj:0\n"
)
# As dmesg prints them: 5.x without a time zone, and 6.8 on Ubuntu, of a machine without memory.
GLOBAL = (
    "[4016034.541383] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=containerd.service"
    ",mems_allowed=0,global_oom,task_memcg=/system.slice/factoryd.service/agents/AR-1/"
    "ar-1-impl-0c12/inner,task=uvicorn,pid=3610113,uid=0"
)
NUMA = (
    "[Sun Jun 29 15:57:11 2025] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=0-2,4,cpuset=/jobs,"
    "mems_allowed=0,2-4,oom_memcg=/a,task_memcg=/a/agents/AR-1/ar-1-impl-0c12,"
    "task=tmux: server,pid=10,uid=1000"
)


@pytest.mark.parametrize(
    ("record", "victim"),
    [
        (MEMCG, Victim(name="python", pid=32556)),
        (GLOBAL, Victim(name="uvicorn", pid=3610113, machine=True)),
        (NUMA, Victim(name="tmux: server", pid=10)),
        (MEMCG.replace("=python,", "=a,task=b,pid=1,"), None),
        (MEMCG.replace("task=python", "task=a,b=c"), Victim(name="a,b=c", pid=32556)),
    ],
)
def test_a_victim_has_its_name_and_pid_and_whether_the_machine_was_out_of_memory(record, victim):
    found = parse_victims([KILLED, record, KILLED], LEAF)
    assert victim is None or found == (victim,)


@pytest.mark.parametrize(
    "record",
    [
        MEMCG.replace("-0c12,task=", "-0c12b,task="),
        MEMCG.replace("task_memcg=/system.slice/factoryd.service/agents", "task_memcg=/x"),
        GLOBAL.replace("/agents", "/other-agents"),
        "6,1,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)",
        KILLED,
        "",
        ";;;",
    ],
)
def test_a_kill_elsewhere_or_half_a_record_is_nobodys_of_this_leaf(record):
    assert parse_victims([record], LEAF) == ()


def test_victims_come_in_the_order_of_the_log():
    records = [MEMCG, KILLED, MEMCG.replace("pid=32556", "pid=7")]
    assert [one.pid for one in parse_victims(records, LEAF)] == [32556, 7]


@pytest.fixture
def log(monkeypatch, tmp_path):
    """A pipe in the place of the log: as there, each read gives what was written at once."""
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    monkeypatch.setattr("factoryd.adapters.kernel_log._LOG", str(path))
    yield writer
    os.close(writer)


def test_the_log_is_read_to_its_end_and_no_further(log):
    os.write(log, MEMCG.encode())
    assert find_victims(LEAF) == (Victim(name="python", pid=32556),)
    assert find_victims(LEAF) == ()


def test_records_that_were_overwritten_meanwhile_are_passed_over(log, monkeypatch):
    lost, read_one = [OSError(errno.EPIPE, "Broken pipe")], os.read

    def read(fd, size):
        if lost:
            raise lost.pop()
        return read_one(fd, size)

    os.write(log, MEMCG.encode())

    monkeypatch.setattr(os, "read", read)
    assert find_victims(LEAF) == (Victim(name="python", pid=32556),)


def test_a_log_that_may_not_be_read_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("factoryd.adapters.kernel_log._LOG", str(tmp_path / "none"))
    with pytest.raises(OSError, match="none"):
        find_victims(LEAF)
