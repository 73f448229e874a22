"""How long it takes to be told what goes on, as a whole process."""

import subprocess
import sys
from statistics import median

from bench.factory import Factory
from bench.figures import Figure, seconds_of


def command_line() -> list[Figure]:
    """Measure `factoryctl --json status` as a whole process, against an empty Python (ms)."""
    with Factory() as factory:
        base = [sys.executable, "-c", "pass"]
        ctl = [sys.executable, "-m", "factoryctl", "--socket", str(factory.socket)]
        bare, ours = _interleaved(base, [*ctl, "--json", "status"], 25)
    return [
        Figure(
            name="factoryctl --json status (ms)",
            value=ours * 1000,
            baseline=bare * 1000,
            target="at most 4 times `python3 -c pass`",
            met=ours <= 4 * bare,
        )
    ]


def _interleaved(one: list[str], other: list[str], repeats: int) -> tuple[float, float]:
    pairs = [(_run(one), _run(other)) for _ in range(repeats)]
    return median(first for first, _ in pairs), median(second for _, second in pairs)


def _run(command: list[str]) -> float:
    return seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
