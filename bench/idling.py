"""What a daemon costs while nothing happens."""

import os
import time
from pathlib import Path

from bench.factory import Factory
from bench.figures import Figure


def idle(count: int = 100, seconds: float = 30) -> list[Figure]:
    """Measure what a daemon with idle agents uses: CPU (% of one) and memory (PSS, MB)."""
    with Factory() as factory:
        factory.submit(count)
        factory.wait_running(count)
        time.sleep(2)
        before = _cpu_s(factory.process.pid)
        time.sleep(seconds)
        cpu = (_cpu_s(factory.process.pid) - before) / seconds * 100
        pss = _pss_mb(factory.process.pid)
    return [
        Figure(
            name=f"idle with {count} agents: CPU (%)",
            value=cpu,
            target="below 0.1 % of one CPU",
            met=cpu < 0.1,
        ),
        Figure(
            name=f"idle with {count} agents: PSS (MB)",
            value=pss,
            target="at most 40 MB",
            met=pss <= 40,
        ),
    ]


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, ended threads included (`stat`, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss of {pid}")
