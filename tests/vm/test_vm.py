"""factoryd as a service of systemd on pure cgroup v2, in machines of its own; see README.md."""

import os
import subprocess

import pytest

from tests.vm.guest.table import CHECKS
from tests.vm.machines import VM_RUN, why_none

REQUIRED = os.environ.get("CI") == "true"
WHY_NONE = why_none()

pytestmark = pytest.mark.vm


@pytest.mark.slow
@pytest.mark.timeout(960)
@pytest.mark.skipif(not REQUIRED and bool(WHY_NONE), reason=WHY_NONE)
@pytest.mark.parametrize(
    ("suite", "check"), [(suite, check) for suite, checks in CHECKS.items() for check in checks]
)
def test_in_a_machine_of_its_own(suite, check, reports):
    trouble = reports[suite, check].trouble
    assert not trouble, trouble


@pytest.mark.parametrize("words", [["vm-run", "bookworm", "/tmp", "true"], ["vm-root", "bookworm"]])
def test_what_makes_machines_says_which_packages_are_missing(words, tmp_path):
    script, *arguments = words
    (tmp_path / "sha256sum").symlink_to("/usr/bin/sha256sum")
    done = subprocess.run(
        ["/bin/bash", VM_RUN.with_name(script), *arguments],
        env={"PATH": str(tmp_path), "VM_CACHE": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "missing: install the Debian packages" in done.stderr
    assert "cpio" in done.stderr
