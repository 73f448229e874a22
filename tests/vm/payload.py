"""What goes into a machine that has no network: the product as installed there, and the checks."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""The Python of each Debian."""


def make_wheels(directory: Path) -> Path:
    """Build the product's wheel, those of what it needs beside it, and return the product's."""
    pip("wheel", "--wheel-dir", str(directory), str(ROOT))
    (wheel,) = directory.glob("factoryd-*.whl")
    return wheel


def make_payload(suite: str, wheel: Path, directory: Path) -> None:
    """Fill a directory: `site` for the Python of that Debian, `tests` with the checks."""
    pip(
        *("install", str(wheel), "--target", str(directory / "site")),
        *("--find-links", str(wheel.parent), "--only-binary", ":all:"),
        *("--python-version", PYTHONS[suite]),
        *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
    )
    guest = Path("tests", "vm", "guest")
    shutil.copytree(ROOT / guest, directory / guest, ignore=shutil.ignore_patterns("__pycache__"))
    for package in guest.parents[:-1]:
        (directory / package / "__init__.py").touch()


def pip(*words: str) -> None:
    """Run pip; a failure is told in its words."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"pip {words[0]}: {done.stdout}{done.stderr}"
