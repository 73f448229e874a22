"""When controllers are switched on, how limits reach a leaf, and what is read from one."""

import errno
import os
from pathlib import Path

import pytest

from factoryd.adapters.cgroup import Leaf, leaf_path
from factoryd.adapters.controllers import find_controllers, read_spent, set_limits, switch_on
from factoryd.core.model import Limits, OutOfMemory, Usage

ALL = frozenset({"memory", "pids", "cpu"})


class Hierarchy:
    """Plain directories in which `cgroup.subtree_control` takes and refuses as the kernel's does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refused: set[str] = set()
        self.written: list[str] = []

    def add(self, name: str, controllers: str = "", procs: str = "") -> Path:
        group = self.path / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "cgroup.controllers").write_text(f"{controllers}\n")
        (group / "cgroup.subtree_control").touch()
        (group / "cgroup.procs").write_text(procs)
        return group

    def take(self, file: Path, text: str) -> None:
        self.written.append(f"{file.parent.relative_to(self.path)} {text}")
        if text.removeprefix("+") in self.refused:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(file))
        on = set(file.read_text().split()) | {text.removeprefix("+")}
        with file.open("w") as control:
            control.write(" ".join(sorted(on)))


@pytest.fixture
def hierarchy(tmp_path, monkeypatch):
    hierarchy = Hierarchy(tmp_path)
    write = Path.write_text

    def write_text(path, text):
        if path.name == "cgroup.subtree_control":
            hierarchy.take(path, text)
        else:
            write(path, text)

    monkeypatch.setattr(Path, "write_text", write_text)
    return hierarchy


def on(group):
    return set((group / "cgroup.subtree_control").read_text().split())


def add_unit(hierarchy, controllers="cpuset cpu io memory pids", procs=""):
    root = hierarchy.add("unit", controllers, procs)
    agents = hierarchy.add("unit/agents", controllers)
    hierarchy.add("unit/daemon")
    return root, agents


# ------------------------------------------------------------------------------------ switched on


def test_a_daemon_that_was_started_in_its_own_sub_leaf_switches_on_what_it_needs(hierarchy):
    root, agents = add_unit(hierarchy)
    assert find_controllers(root, root / "daemon") == ALL
    assert on(root) == on(agents) == ALL, "and no other"
    assert find_controllers(root, root / "daemon") == ALL
    assert len(hierarchy.written) == 6, "nothing is written twice"


def test_a_daemon_that_is_started_in_the_units_own_cgroup_leaves_it_restartable(hierarchy):
    root, agents = add_unit(hierarchy)
    assert find_controllers(root, root) == set()
    assert on(root) == on(agents) == set()


def test_processes_of_others_in_the_root_keep_controllers_off(hierarchy, caplog):
    root, _ = add_unit(hierarchy, procs="4242\n")
    assert find_controllers(root, root / "daemon") == set()
    assert on(root) == set()
    assert f"processes of others are in {root}" in caplog.text


def test_a_root_beside_the_daemon_uses_what_the_cgroup_above_has_on(hierarchy):
    own = hierarchy.add("own", "cpu memory pids", procs="1\n2\n")
    root = hierarchy.add("own/factoryd-x", "memory pids")
    agents = hierarchy.add("own/factoryd-x/agents", "memory pids")
    assert find_controllers(root, own) == {"memory", "pids"}
    assert on(own) == set(), "that is not ours to change"
    assert on(agents) == {"memory", "pids"}


def test_what_is_not_offered_is_not_asked_for(hierarchy):
    root, agents = add_unit(hierarchy, controllers="hugetlb cpuset")
    assert find_controllers(root, root / "daemon") == set()
    assert hierarchy.written == []
    assert on(root) == on(agents) == set()


def test_a_controller_that_is_refused_costs_no_other_and_is_reported(hierarchy, caplog):
    root, agents = add_unit(hierarchy)
    hierarchy.refused = {"memory"}
    assert find_controllers(root, root / "daemon") == {"cpu", "pids"}
    assert on(agents) == {"cpu", "pids"}
    assert f"these controllers cannot be switched on in {root}: memory" in caplog.text


def test_a_cgroup_that_is_gone_is_controlled_by_nothing(tmp_path):
    assert switch_on(tmp_path / "gone", ALL) == set()
    assert find_controllers(tmp_path / "gone", tmp_path / "gone" / "daemon") == set()


def test_the_directory_of_an_issue_passes_controllers_on_to_its_leaves(hierarchy):
    issue = hierarchy.add("agents/AR-1", "memory pids")
    for run in ("one", "two"):
        leaf = leaf_path(hierarchy.path, "AR-1", run)
        Leaf(leaf).create(frozenset({"memory", "pids"}))
        assert leaf.parent == issue
        assert leaf.is_dir()
        assert on(issue) == {"memory", "pids"}
    assert len(hierarchy.written) == 2


# ----------------------------------------------------------------------------------------- limits


def a_leaf(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / name.replace("_", ".", 1)).write_text(text)
    return tmp_path


LIMITS = Limits(memory_max_bytes=64 << 20, pids_max=32, cpu_weight=50)


def test_limits_are_written_to_the_leaf(tmp_path):
    leaf = a_leaf(tmp_path, memory_max="max\n", pids_max="max\n", cpu_weight="100\n")
    (leaf / "memory.oom.group").write_text("0\n")
    assert set_limits(leaf, LIMITS) == Limits(), "nothing is left to do"
    written = [(leaf / name).read_text() for name in ("memory.max", "pids.max", "cpu.weight")]
    assert written == ["67108864", "32", "50"]
    assert (leaf / "memory.oom.group").read_text() == "0\n"


def test_limits_without_a_controller_are_left_for_the_shim_and_no_file_is_made(tmp_path):
    assert set_limits(tmp_path, LIMITS) == LIMITS
    assert list(tmp_path.iterdir()) == []
    leaf = a_leaf(tmp_path, memory_max="max\n")
    assert set_limits(leaf, LIMITS) == Limits(pids_max=32, cpu_weight=50)


def test_no_limit_is_written_where_none_is_set(tmp_path):
    leaf = a_leaf(tmp_path, memory_max="max\n", pids_max="max\n", cpu_weight="100\n")
    assert set_limits(leaf, Limits()) == Limits()
    assert (leaf / "memory.max").read_text() == "max\n"


# ---------------------------------------------------------------------------------- what was used


def test_what_a_tree_used_is_read_from_its_leaf(tmp_path):
    leaf = a_leaf(
        tmp_path,
        cpu_stat="usage_usec 1500000\nuser_usec 1000000\ncore_sched.force_idle_usec x\n",
        pids_peak="7\n",
        memory_peak="1048576\n",
        memory_events="low 0\nhigh 0\nmax 12\noom 0\noom_kill 0\noom_group_kill 0\n",
    )
    assert read_spent(leaf) == Usage(
        processes=0, cpu_s=1.5, memory_bytes=0, peak_processes=7, peak_memory_bytes=1 << 20
    )


def test_what_a_leaf_does_not_tell_is_unknown(tmp_path):
    nothing = Usage(processes=0, memory_bytes=0)
    assert read_spent(tmp_path) == nothing
    assert read_spent(tmp_path / "gone") == nothing


@pytest.mark.parametrize(
    ("events", "limit", "lack"),
    [
        ("oom 3\noom_kill 2\n", "67108864\n", OutOfMemory(kills=2, limit_bytes=64 << 20)),
        ("oom 0\noom_kill 1\n", "67108864\n", OutOfMemory(kills=1)),
        ("oom 1\noom_kill 1\n", "max\n", OutOfMemory(kills=1)),
        ("oom 5\noom_kill 0\n", "67108864\n", None),
    ],
    ids=["own limit", "another limit", "inner group", "nobody killed"],
)
def test_kills_for_lack_of_memory_are_counted_and_blamed_on_the_limit_that_was_reached(
    tmp_path, events, limit, lack
):
    leaf = a_leaf(tmp_path, memory_events=events, memory_max=limit)
    assert read_spent(leaf).out_of_memory == lack
