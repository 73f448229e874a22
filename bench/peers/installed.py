"""Installs the peers: Debian packages, and a Python and a Node of their own outside the tree."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]

CACHE = Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "factoryd-bench")
"""Where peers are kept from one run to the next."""

PYTHON_PEERS = CACHE / f"python-{sys.version_info.major}.{sys.version_info.minor}"
NODE_PEERS = CACHE / "node"
DEBIAN = ("s6", "runit", "mmdebstrap", "systemd-container")


def install(names: frozenset[str]) -> None:
    """Install what peers of these names need, where it is missing; a failure names the step."""
    debian = [package for package in DEBIAN[:2] if package in names]
    if "systemd" in names:
        debian += DEBIAN[2:]
    if "pm2" in names:
        debian += [tool for tool in ("nodejs", "npm") if not _has(tool)]
    subprocess.run([ROOT / ".ci" / "need", *debian], check=True)
    if names & {"supervisord", "circus"}:
        _install_python("supervisor", "circus")
    if "pm2" in names and not (NODE_PEERS / "node_modules" / "pm2").exists():
        quiet = ["--silent", "--no-fund", "--no-audit"]
        subprocess.run(["npm", "install", *quiet, "--prefix", str(NODE_PEERS), "pm2"], check=True)


def python_version(package: str) -> str:
    """Return the version of a peer that is a Python package."""
    places = [str(path) for path in PYTHON_PEERS.glob("lib/python*/site-packages")]
    for found in distributions(name=package, path=places):
        return f"{package} {found.version}"
    return f"{package} (not installed)"


def _install_python(*packages: str) -> None:
    done = PYTHON_PEERS / "done"
    if done.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(PYTHON_PEERS)], check=True)
    pip = [str(PYTHON_PEERS / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "install", *packages], check=True)
    done.touch()


def _has(tool: str) -> bool:
    """Say whether a program is there: Node need not come from Debian."""
    return shutil.which("node" if tool == "nodejs" else tool) is not None
