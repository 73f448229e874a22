"""Measures factoryd and its peers: `python -m bench [run|smoke|report|NAME...]`.

run      measure everything, write the report into docs/, print the figures that have a target
smoke    measure a little, print it as JSON, write nothing: what the tests run
report   write the report and README's figures from what `run` stored
NAME     measure factoryd's own figures of that name only, and print them
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module

from bench import report
from bench.figures import Figure
from bench.looking import command_line
from bench.plan import Plan
from bench.recovery import recover
from bench.results import Results
from bench.scale import FULL, SMOKE, Scale
from bench.sessions import Sessions
from bench.starting import start_agents
from bench.stopping import kill_large_tree, kill_many, kill_tree
from bench.succession import next_stage, resume
from bench.targets import figures, is_explained

MEASUREMENTS = (
    start_agents,
    next_stage,
    resume,
    kill_tree,
    kill_large_tree,
    kill_many,
    recover,
    command_line,
)
"""factoryd's own figures, each compared with what is done by hand in the same run."""


def main(words: list[str]) -> int:
    """Do what was asked for; return the exit status: 1 if a target is missed and nobody says why."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed, modules are compiled once
    match words:
        case [] | ["run"]:
            return _run()
        case ["smoke"]:
            results = _measure(SMOKE)
            print(json.dumps([asdict(one) for one in figures(results)]))
            return 1 if results.reasons else 0
        case ["report"]:
            report.write(Results.load(report.JSON))
            report.write_readme(Results.load(report.JSON))
            return 0
        case _:
            return _own(words)


def _run() -> int:
    began = time.monotonic()
    install = import_module("bench.peers.installed").install
    install(frozenset(FULL.peers))
    results = _measure(FULL)
    found = [*figures(results), *_measure_own([one.__name__ for one in MEASUREMENTS])]
    results.targets = [{**asdict(one), "ratio": one.ratio} for one in found]
    results.machine["took"] = f"{(time.monotonic() - began) / 60:.0f} minutes"
    results.save(report.JSON)
    report.write(results)
    _print(found)
    print(f"The whole report is {report.PAGE}, what it is made from {report.JSON}")
    return 0 if all(map(is_explained, found)) else 1


def _measure(scale: Scale) -> Results:
    results = Results()
    results.machine = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": str(os.cpu_count()),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
    with _sessions(scale.peers) as sessions:
        for name in scale.peers:
            with sessions.open(name) as session:
                results.versions[name] = session.peer.version()
                results.configured[name] = session.peer.notes
        Plan(sessions, scale, results).run()
    return results


@contextmanager
def _sessions(names: Sequence[str]) -> Iterator[Sessions]:
    """Boot the machine for systemd if that is among the peers."""
    with ExitStack() as stack:
        machine = None
        if "systemd" in names:
            machine = stack.enter_context(import_module("bench.peers.systemd").booted())
        yield Sessions(machine)


def _own(words: Sequence[str]) -> int:
    known = [one.__name__ for one in MEASUREMENTS]
    unknown = set(words) - set(known)
    if unknown:
        sys.stderr.write(
            f"no such measurement: {', '.join(unknown)}: there are {', '.join(known)}\n"
        )
        return 2
    found = _measure_own(words)
    _print(found)
    return 0 if all(map(is_explained, found)) else 1


def _measure_own(names: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    for measurement in MEASUREMENTS:
        if measurement.__name__ in names:
            began = time.monotonic()
            found += measurement()
            sys.stderr.write(f"{measurement.__name__}: {time.monotonic() - began:.0f} s\n")
    return found


def _print(found: Sequence[Figure]) -> None:
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; of a busy machine read the ratios"
    )
    print(f"{'figure':54} {'value':>10} {'compared with':>14} {'ratio':>8}  target")
    for one in found:
        compared = "-" if one.baseline is None else f"{one.baseline:.2f}"
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        met = "" if one.met else "  MISSED"
        print(f"{one.name:54} {one.value:10.2f} {compared:>14} {ratio:>8}  {one.target}{met}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
