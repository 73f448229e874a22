"""How long it takes to start many agents."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from bench.factory import AGENT, NAP, Factory, wait_until
from bench.figures import Figure

REPEATS = 3


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


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
