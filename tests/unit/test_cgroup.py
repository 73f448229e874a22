"""Where cgroups may be made on all sorts of machines, and what a leaf does."""

import os
from pathlib import Path

import pytest
import trio

from factoryd.adapters.cgroup import (
    Leaf,
    LeafGroup,
    cgroup_of,
    choose_root,
    leaf_path,
    list_leaves,
    parse_mount,
    parse_own,
)

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)
PART = "50 40 0:26 /docker/a\\040b /sys/fs/cgroup rw - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "own", "path"),
    [
        (UNIFIED, "/", "/sys/fs/cgroup"),
        (UNIFIED, "/system.slice/factoryd.service", "/sys/fs/cgroup/system.slice/factoryd.service"),
        (HYBRID, "/", "/sys/fs/cgroup/unified"),
        (HYBRID, "/a/b", "/sys/fs/cgroup/unified/a/b"),
        (PART, "/docker/a b", "/sys/fs/cgroup"),
        (PART, "/docker/a b/c", "/sys/fs/cgroup/c"),
    ],
)
def test_a_cgroup_is_found_in_every_layout(mountinfo, own, path):
    mount = parse_mount(mountinfo, own)
    assert mount is not None
    assert mount.path_of(own) == path


@pytest.mark.parametrize(
    ("mountinfo", "own"),
    [("", "/"), (PART, "/other"), (PART, "/docker/a bc"), (UNIFIED, "/../above")],
)
def test_a_cgroup_that_is_not_shown_is_not_guessed(mountinfo, own):
    assert parse_mount(mountinfo, own) is None


def test_the_own_cgroup_is_the_one_without_a_hierarchy_number():
    assert parse_own("9:name=systemd:/x\n0::/a b\n") == "/a b"
    assert parse_own("4:memory:/x\n") is None


def test_the_same_daemon_finds_the_same_root_again(tmp_path):
    own = tmp_path / "unit"
    own.mkdir()
    assert choose_root(own, "n", alone=True) == own
    assert choose_root(own, "n", alone=False) == own / "factoryd-n"
    (own / "agents").mkdir()
    assert choose_root(own, "n", alone=False) == own
    (own / "daemon").mkdir()
    assert choose_root(own / "daemon", "n", alone=True) == own
    (own / "factoryd-n" / "agents").mkdir(parents=True)
    assert choose_root(own, "n", alone=True) == own / "factoryd-n"
    assert choose_root(own, "other", alone=True) == own


def a_unit(top, *groups):
    """Return the directory of a unit's cgroup, with these groups in it."""
    unit = top / "system.slice" / "factoryd.service"
    for group in ("", *groups):
        (unit / group).mkdir(parents=True)
    return unit


def test_a_delegated_unit_is_the_root_and_stays_it_when_the_daemon_has_moved_into_it(tmp_path):
    unit = a_unit(tmp_path)
    assert choose_root(unit, "n", alone=True) == unit
    (unit / "agents").mkdir()
    (unit / "daemon").mkdir()
    assert choose_root(unit, "n", alone=False) == unit, "agents of a killed daemon are beside it"
    assert choose_root(unit / "daemon", "n", alone=True) == unit, "a daemon that was not restarted"


@pytest.mark.parametrize("alone", [True, False])
def test_a_delegated_unit_with_a_subgroup_for_the_daemon_is_the_root(tmp_path, alone):
    unit = a_unit(tmp_path, "daemon")
    assert choose_root(unit / "daemon", "n", alone=alone) == unit
    (unit / "agents" / "AR-1").mkdir(parents=True)
    assert choose_root(unit / "daemon", "n", alone=alone) == unit


def test_a_subgroup_of_another_name_is_a_cgroup_of_its_own(tmp_path):
    unit = a_unit(tmp_path, "main")
    assert choose_root(unit / "main", "n", alone=True) == unit / "main"


def test_a_cgroup_shared_with_others_gets_one_root_for_each_daemon(tmp_path):
    scope = tmp_path / "user.slice" / "user-1000.slice" / "session-1.scope"
    scope.mkdir(parents=True)
    assert choose_root(scope, "one", alone=False) == scope / "factoryd-one"
    assert choose_root(scope, "two", alone=False) == scope / "factoryd-two"


@pytest.mark.parametrize("subgroup", ["", "daemon"])
def test_a_unit_of_a_user_manager_is_found_and_is_the_root(tmp_path, subgroup):
    slice_ = "/user.slice/user-1000.slice/user@1000.service/app.slice"
    own = f"{slice_}/factoryd.service/{subgroup}".rstrip("/")
    mount = parse_mount(UNIFIED.replace("/sys/fs/cgroup", str(tmp_path)), own)
    assert mount is not None
    directory = Path(str(mount.path_of(own)))
    assert directory == Path(f"{tmp_path}{own}")
    directory.mkdir(parents=True)
    unit = Path(f"{tmp_path}{slice_}/factoryd.service")
    assert choose_root(directory, "n", alone=True) == unit


@pytest.mark.parametrize("key", ["AR-255", "a/b", "..", ".", "memory.max", "cgroup.procs", "ä b\n"])
def test_any_key_is_one_directory_that_is_read_back(tmp_path, key):
    path = leaf_path(tmp_path, key, "run-1")
    path.mkdir(parents=True)
    assert path.parent.parent == tmp_path / "agents"
    assert "." not in path.parent.name
    assert "\n" not in path.parent.name
    assert list_leaves(tmp_path) == [(key, "run-1", path)]


@pytest.mark.system
async def test_a_leaf_is_made_and_removed_with_its_issue(cgroup_root):
    one, two = (Leaf(leaf_path(cgroup_root, "AR-1", run)) for run in ("one", "two"))
    one.create()
    two.create()
    with pytest.raises(FileExistsError):
        one.create()
    one.remove()
    assert list_leaves(cgroup_root) == [("AR-1", "two", leaf_path(cgroup_root, "AR-1", "two"))]
    two.remove()
    two.remove()
    assert list((cgroup_root / "agents").glob("*/")) == []


@pytest.mark.system
async def test_a_leaf_tells_who_is_in_it_and_when_it_is_empty(cgroup_root):
    leaf = Leaf(leaf_path(cgroup_root, "AR-1", "run"))
    leaf.create()
    process = await trio.lowlevel.open_process(["/bin/sleep", "600"])
    leaf.procs.write_text(str(process.pid))
    assert leaf.list_pids() == [process.pid]
    assert leaf.holds(process.pid)
    assert not leaf.holds(os.getpid())
    assert LeafGroup(leaf).among([process.pid, os.getpid()]) == {process.pid}
    assert leaf.is_populated()
    with pytest.raises(OSError, match="busy"):
        leaf.remove()
    with trio.move_on_after(0.05) as scope:
        await leaf.wait_empty()
    assert scope.cancelled_caught
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leaf.wait_empty)
            await trio.testing.wait_all_tasks_blocked()
            leaf.kill()
    assert leaf.list_pids() == []
    assert LeafGroup(leaf).among([process.pid]) == {process.pid}, "ended, and nobody else's"
    assert leaf.read_cpu_s() is not None
    leaf.remove()
    await process.wait()


@pytest.mark.system
async def test_a_leaf_that_is_not_there_is_empty(cgroup_root):
    leaf = Leaf(leaf_path(cgroup_root, "AR-1", "never"))
    await leaf.wait_empty()
    leaf.kill()
    leaf.thaw()
    leaf.remove()
    assert leaf.list_pids() == []
    assert not leaf.is_populated()
    assert leaf.read_cpu_s() is None


@pytest.mark.system
def test_a_threaded_group_inside_hides_nobody(cgroup_root):
    leaf = Leaf(leaf_path(cgroup_root, "AR-1", "run"))
    leaf.create()
    sub = leaf_path(cgroup_root, "AR-1", "run") / "threads"
    sub.mkdir()
    (sub / "cgroup.type").write_text("threaded")
    assert leaf.list_pids() == []
    leaf.remove()
    assert not sub.exists()


def test_the_own_cgroup_is_a_directory():
    own = cgroup_of(os.getpid())
    assert own is not None
    assert Path(own, "cgroup.procs").exists()
    assert cgroup_of(2**22 - 1) is None
