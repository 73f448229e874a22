"""The machines themselves: what they need, and that they leave nothing."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import own_roots
from tests.systemd.machines import BOOTED, SYSTEM_ROOT, a_machine


def needs_machines(test: Callable[[Path], None]) -> Callable[[Path], None]:
    """Give a test the marks of those that boot."""
    for mark in BOOTED:
        test = mark(test)
    return test


@needs_machines
def test_a_machine_that_has_ended_leaves_nothing(tmp_path: Path) -> None:
    with a_machine("trixie", tmp_path) as machine:
        assert machine.run("systemctl", "is-system-running").strip() == "running"
        assert own_roots() != []
        name = machine.name
    assert own_roots() == []
    assert name not in Path("/proc/self/mountinfo").read_text()
    for directory, below, files in os.walk("/run/systemd/nspawn"):
        assert name not in {*below, *files}, directory


def test_what_makes_machines_says_which_package_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sha256sum").symlink_to("/usr/bin/sha256sum")
    done = subprocess.run(
        ["/bin/bash", SYSTEM_ROOT, "trixie"],
        env={"PATH": str(tmp_path), "SYSTEMD_CACHE": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "missing: install the Debian packages mmdebstrap" in done.stderr
