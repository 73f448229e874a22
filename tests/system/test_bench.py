"""The benchmarks at a small scale, for their counts alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from factoryd.adapters.cgroup import cgroup_of

ROOT = Path(__file__).parents[2]
COUNTS = {
    "tree: survivors",
    "stop all: survivors",
    "crash: lost",
    "crash: duplicated",
    "crash: orphaned processes",
    "output: bytes lost",
}


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_survives_is_lost_or_runs_twice_where_factoryd_is_measured():
    measured = subprocess.Popen(
        [sys.executable, "-m", "bench", "smoke"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said, why = measured.communicate()
    assert measured.returncode == 0, why
    figures = json.loads(said)
    counted = {one["name"].partition(",")[0]: one["value"] for one in figures}
    assert {name: counted[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0), figures
    own = cgroup_of(os.getpid())
    assert own is not None
    assert not list(Path(own).glob(f"bench-{measured.pid}-*"))
