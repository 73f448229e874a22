"""How long it takes a new daemon to own the agents of one that died."""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from bench.factory import Factory, wait_until
from bench.figures import Figure, seconds_of

REPEATS = 5
LOOK_EVERY_S = 0.01


def recover(count: int = 500) -> list[Figure]:
    """Measure from the start of a daemon until it owns what one that was killed has left (ms).

    It owns them when `Status` shows all agents as running and it holds the descriptor of each
    one's first process, through which it learns of its end.
    """
    ours: list[float] = []
    bare: list[float] = []
    with Factory() as factory:
        factory.submit(count)
        factory.wait_running(count)
        for _ in range(REPEATS):
            factory.die()
            bare.append(seconds_of(_run_python))
            began = time.perf_counter()
            factory.start()
            wait_until(lambda: _pidfds(factory.process.pid) >= count, pause_s=LOOK_EVERY_S)
            factory.wait_running(count, pause_s=LOOK_EVERY_S)
            ours.append(time.perf_counter() - began)
    value, baseline = median(ours) * 1000, median(bare) * 1000
    return [
        Figure(
            name=f"recovery of {count} running agents (ms)",
            value=value,
            baseline=baseline,
            target="at most 1000 ms (compared with `python3 -c pass`)",
            met=value <= 1000,
        )
    ]


def _run_python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def _pidfds(pid: int) -> int:
    found = 0
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found += str(descriptor.readlink()) == "anon_inode:[pidfd]"
    return found
