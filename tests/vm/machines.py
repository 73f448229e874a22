"""Machines for checks: one for each Debian, all at once, and what each check of them came to."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.vm.payload import make_payload, make_wheels

VM_RUN = Path(__file__).with_name("vm-run")
PACKAGES = {"mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio"}
"""The Debian package of each program that makes or runs a machine."""

BOUND_S = 900
"""When a machine is given up; on one that is not busy all take less than a fifth of it."""


class Report(NamedTuple):
    """What a check came to; no trouble is success."""

    took_s: float
    trouble: str


def why_none() -> str:
    """Return why no machine can be had here, "" where one can."""
    missing = [package for tool, package in PACKAGES.items() if not shutil.which(tool)]
    if missing:
        return f"missing: run .ci/need {' '.join(missing)}"
    return "" if os.geteuid() == 0 else "only root can make a machine's root file system"


def examine(wanted: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], Report]:
    """Run the checks wanted of each suite and return the reports, by suite and check.

    A check that has not reported has trouble: how its machine ended.
    """
    with tempfile.TemporaryDirectory(prefix="factoryd-vm-") as name, ExitStack() as running:
        directory = Path(name)
        wheel = make_wheels(directory / "wheels")
        machines = {}
        for suite, checks in wanted.items():
            make_payload(suite, wheel, directory / suite)
            output = directory / f"{suite}.out"
            machines[suite] = (
                output,
                running.enter_context(_machine(suite, checks, directory / suite, output)),
            )
        reports: dict[tuple[str, str], Report] = {}
        for suite, (output, machine) in machines.items():
            status = machine.wait()
            ending = f"it did not run: the machine ended with {status}\n{output.read_text()}"
            reports |= {(suite, check): Report(0, ending) for check in wanted[suite]}
            reports |= {(suite, check): report for check, report in _read(output)}
        return reports


@contextmanager
def _machine(
    suite: str, checks: Sequence[str], payload: Path, output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run checks in a machine that ends by itself, and in any case at the end of the context."""
    command = ["env", "PYTHONPATH=/vm/site:/vm", "python3", "-m", "tests.vm.guest", suite, *checks]
    with output.open("wb") as file:
        machine = subprocess.Popen(
            [VM_RUN, suite, payload, *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "VM_SECONDS": str(BOUND_S)},
        )
    try:
        yield machine
    finally:
        machine.terminate()
        machine.wait()


def _read(output: Path) -> Iterator[tuple[str, Report]]:
    for line in output.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            told = json.loads(line)
            yield told["check"], Report(told["took_s"], told["trouble"])
