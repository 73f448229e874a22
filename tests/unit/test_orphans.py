"""Trees found from outside: ours by the root's name, or by what a shim in them says."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from factoryd.adapters.cgroup import Leaf, find_roots, leaf_path
from factoryd.adapters.launch import SHIM
from factoryd.adapters.orphans import OrphanTrees
from factoryd.adapters.proc import read_argv
from factoryd.adapters.scan import scan
from factoryd.core.lookup import Scan, ScanFailed
from factoryd.core.model import RunId, TreePlace

NOBODY = frozenset[RunId]()


@contextmanager
def a_tree(root, run, state):
    """Run a shim of a state directory in a leaf below a root."""
    leaf = Leaf(leaf_path(root, "AR-1", run))
    leaf.create()
    state.mkdir(exist_ok=True)
    names = ["--agent-name", "ar-1-w", "--run", run, "--procs", str(leaf.procs)]
    process = subprocess.Popen(
        ["/bin/sh", str(SHIM), *names, "--status", str(state / "status"), "--", "sleep", "600"],
        start_new_session=True,
    )
    try:
        while len(leaf.list_pids()) < 2:
            assert process.poll() is None
        yield leaf
    finally:
        leaf.kill()
        process.wait()
        while leaf.is_populated():
            pass
        leaf.remove()


def place(root, run):
    leaf = str(leaf_path(root, "AR-1", run))
    return TreePlace(run=RunId(run), issue="AR-1", agent="ar-1-w", directory="", cgroup=leaf)


def test_a_root_of_the_daemons_name_is_found_and_all_in_it_is_ours(
    cgroup_root, daemon_name, tmp_path
):
    assert find_roots(daemon_name) == [cgroup_root]
    assert find_roots(f"{daemon_name}-not") == []
    with a_tree(cgroup_root, "ar-1-w-1", tmp_path / "elsewhere"):
        trees = OrphanTrees(daemon_name, tmp_path / "state", [])
        assert [stray.run for stray in trees.list_strays(NOBODY)] == ["ar-1-w-1"]
        assert trees.list_strays(frozenset({RunId("ar-1-w-1")})) == []


def test_in_a_services_cgroup_only_what_says_so_itself_is_ours(
    cgroup_root, daemon_name, tmp_path, caplog
):
    """Another daemon may work there by now; a root counts because a recorded run was in it."""
    state = tmp_path / "state"
    trees = OrphanTrees("another", state, [place(cgroup_root, "ar-1-w-0")])
    with (
        a_tree(cgroup_root, "ar-1-w-1", state),
        a_tree(cgroup_root, "ar-1-w-2", tmp_path / "elsewhere"),
        a_tree(cgroup_root, "ar-1-w-3", tmp_path / "state-2"),
    ):
        assert [stray.run for stray in trees.list_strays(NOBODY)] == ["ar-1-w-1"]
    assert caplog.text.count("is left alone: nothing in it says that it is ours") == 2


def test_looking_from_outside_makes_nothing(daemon_name, tmp_path):
    assert OrphanTrees(daemon_name, tmp_path / "state", []).list_strays(NOBODY) == []
    assert find_roots(daemon_name) == []
    assert list(tmp_path.iterdir()) == []


def test_a_scan_sees_every_process_with_its_parent_and_its_words():
    with subprocess.Popen(["sleep", "600"]) as child:
        try:
            while read_argv(child.pid) != ("sleep", "600"):
                time.sleep(0.001)
            seen = scan()
            assert isinstance(seen, Scan)
            (one,) = [each for each in seen.processes if each.identity.pid == child.pid]
            assert one.argv == ("sleep", "600")
            assert one.ppid == os.getpid()
            assert one.identity.boot_id == seen.boot_id
        finally:
            child.kill()


def test_a_scan_that_fails_in_part_is_no_scan(monkeypatch):
    def refuse(pid):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("factoryd.adapters.scan.read_argv", refuse)
    seen = scan()
    assert isinstance(seen, ScanFailed)
    assert "Permission denied" in seen.reason


def test_a_zombie_is_no_process_of_anybody():
    child = subprocess.Popen(["true"])
    try:
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            pass
        seen = scan()
        assert isinstance(seen, Scan)
        assert child.pid not in {each.identity.pid for each in seen.processes}
    finally:
        child.wait()
