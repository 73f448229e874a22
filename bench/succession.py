"""How long it takes from the end of one agent to its successor's beginning."""

import subprocess
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench.factory import Factory, wait_until
from bench.figures import Figure

WORD = ["date", "+%s.%N"]
"""The agent: it says when it was there, and is gone."""

COUNT = 20
"""Agents in a row; also how often one may be resumed."""


def next_stage() -> list[Figure]:
    """Measure from an agent's exit to the word of the next stage's agent (ms)."""
    stages = [["agent"], ["other"]] * (COUNT // 2)
    with Factory(WORD, stages=stages) as factory:
        gaps = _gaps(factory)
    return [_figure("exit to the next stage's agent running (ms)", gaps)]


def resume() -> list[Figure]:
    """Measure from an agent's crash to the word of its next run, the delay being 0 (ms)."""
    with Factory(["sh", "-c", f"{' '.join(WORD)}; exit 1"]) as factory:
        gaps = _gaps(factory)
    return [_figure("crash to the agent resumed (ms)", gaps)]


def _gaps(factory: Factory) -> list[float]:
    """Return what is between the words of agents that follow one another.

    That is all an agent and the next can notice of it: the rest of the first one's program, the
    shim's end, the proof that nothing is left, the facts, the next shim and its program's start.
    """
    factory.submit(1)
    outputs = factory.root / "st" / "runs"
    wait_until(lambda: len(_words(outputs.rglob("output"))) >= COUNT)
    words = sorted(_words(outputs.rglob("output")))
    return [after - before for before, after in pairwise(words)]


def _words(files: Iterable[Path]) -> list[float]:
    return [float(word) for file in files for word in file.read_text().split()]


def _figure(name: str, gaps: list[float]) -> Figure:
    value, baseline = median(gaps) * 1000, median(_bare_gaps()) * 1000
    return Figure(
        name=name,
        value=value,
        baseline=baseline,
        target="median at most 10 ms (compared with a bare Popen loop)",
        met=value <= 10,
    )


def _bare_gaps() -> list[float]:
    """Return the same of programs that a bare loop starts and waits for."""
    runs = [subprocess.run(WORD, stdout=subprocess.PIPE, check=True) for _ in range(COUNT)]
    words = [float(run.stdout) for run in runs]
    return [after - before for before, after in pairwise(words)]
