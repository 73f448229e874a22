"""Programs of Debian that only some tests need."""

import os
import shutil

import pytest


def find_program(name: str, package: str = "") -> str:
    """Return a program's path; where it is missing the test is skipped, in CI it fails."""
    found = shutil.which(name)
    if found is None:
        missing = f"{name} is not installed: apt-get install {package or name}"
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing)
    return found
