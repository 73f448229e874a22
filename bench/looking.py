"""How long it takes to be told what goes on."""

import subprocess
import sys
from statistics import median

from bench.factory import Connection, Factory
from bench.figures import Figure, seconds_of


def status_of_many(count: int = 500) -> list[Figure]:
    """Measure `Status` of many agents over an open connection (ms)."""
    with Factory() as factory:
        factory.submit(count)
        factory.wait_running(count)
        with Connection(factory.socket) as connection:
            value = median(_repeat(connection, "Status")) * 1000
            floor = median(_repeat(connection, "Health")) * 1000
    return [
        Figure(
            name=f"Status of {count} agents, open socket (ms)",
            value=value,
            baseline=floor,
            target="median at most 3 ms (compared with Health)",
            met=value <= 3,
        )
    ]


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


def _repeat(connection: Connection, method: str) -> list[float]:
    return [seconds_of(lambda: connection.call_raw(method)) for _ in range(200)]


def _interleaved(one: list[str], other: list[str], repeats: int) -> tuple[float, float]:
    pairs = [(_run(one), _run(other)) for _ in range(repeats)]
    return median(first for first, _ in pairs), median(second for _, second in pairs)


def _run(command: list[str]) -> float:
    return seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
