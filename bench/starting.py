"""The measurements, each returning its figures with what they are compared with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.factory import AGENT, NAP, Connection, Factory, wait_until

REPEATS = 3


@dataclass(frozen=True)
class Figure:
    """One figure: its value, what it is compared with, and whether the target is met."""

    name: str
    value: float
    target: str
    met: bool
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        """Return how many times the baseline it is."""
        return None if self.baseline is None else self.value / self.baseline


def start_agents(count: int = 300) -> list[Figure]:
    """Measure how long until all of many agents run, against a bare Popen loop (ms).

    Both end when the last agent has started its second process, as the kernel noted it.
    """
    ours: list[float] = []
    bare: list[float] = []
    for _ in range(REPEATS):
        bare.append(_bare_loop(count))
        with Factory() as factory:
            factory.submit(count)
            wait_until(lambda: len(_naps()) >= count, seconds=120, pause_s=1)
            claimed = _moment(factory.facts("issue-claimed")[0]["at"])
            since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) - time.time()
            ours.append((max(_naps()) - claimed - since_boot) * 1000)
    value, baseline = median(ours), median(bare)
    return [
        Figure(
            name=f"start of {count} agents (ms)",
            value=value,
            baseline=baseline,
            target="at most 2.5 times a bare Popen loop",
            met=value <= 2.5 * baseline,
        )
    ]


def status_of_many(count: int = 500) -> list[Figure]:
    """Measure `Status` of many agents over an open connection (ms)."""
    with Factory() as factory:
        factory.submit(count)
        factory.wait_running(count)
        with Connection(factory.socket) as connection:
            value = median(_times(lambda: connection.call_raw("Status"), 200)) * 1000
            floor = median(_times(lambda: connection.call_raw("Health"), 200)) * 1000
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


def _bare_loop(count: int) -> float:
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    agents = [
        subprocess.Popen(
            AGENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        for _ in range(count)
    ]
    wait_until(lambda: len(_naps()) >= count, pause_s=1)
    took = max(_naps()) - began
    for agent in agents:
        os.killpg(agent.pid, signal.SIGKILL)  # a child not waited for yet: its group is ours
    for agent in agents:
        agent.wait()
    return took * 1000


def _naps() -> list[float]:
    """Return when each agent's second process was started (seconds since boot)."""
    started: list[float] = []
    wanted = b"\0".join(word.encode() for word in NAP) + b"\0"
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdecimal() and (process / "cmdline").read_bytes() == wanted:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                started.append(int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    return started


def _interleaved(one: list[str], other: list[str], repeats: int) -> tuple[float, float]:
    pairs = [(_run(one), _run(other)) for _ in range(repeats)]
    return median(first for first, _ in pairs), median(second for _, second in pairs)


def _run(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _times(call: Callable[[], object], repeats: int) -> list[float]:
    taken: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, ended threads included (`stat`, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss of {pid}")
