"""Runs the measurements and prints a table: figure, what it is compared with, ratio, target."""

import json
import os
import sys
from pathlib import Path

from bench.figures import Figure
from bench.idling import idle
from bench.looking import command_line, status_of_many
from bench.recovery import recover
from bench.starting import start_agents
from bench.stopping import kill_large_tree, kill_many, kill_tree
from bench.succession import next_stage, resume

MEASUREMENTS = (
    start_agents,
    next_stage,
    resume,
    kill_tree,
    kill_large_tree,
    kill_many,
    recover,
    status_of_many,
    command_line,
    idle,
)


def main(wanted: list[str]) -> int:
    """Measure all, or only what is wanted by name; print and store the figures.

    Returns the exit status, which says whether all targets were met.
    """
    unknown = set(wanted) - {one.__name__ for one in MEASUREMENTS}
    if unknown:
        names = ", ".join(one.__name__ for one in MEASUREMENTS)
        sys.stderr.write(f"no such measurement: {', '.join(unknown)}: there are {names}\n")
        return 2
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed, modules are compiled once
    figures: list[Figure] = []
    for measurement in MEASUREMENTS:
        if not wanted or measurement.__name__ in wanted:
            sys.stderr.write(f"{measurement.__name__} ...\n")
            figures += measurement()
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; of a busy machine read the ratios"
    )
    print(f"{'figure':44} {'value':>12} {'compared with':>14} {'ratio':>8}  target")
    for one in figures:
        compared = "-" if one.baseline is None else f"{one.baseline:.2f}"
        ratio = "-" if one.ratio is None else f"{one.ratio:.2f}"
        met = "" if one.met else "  MISSED"
        print(f"{one.name:44} {one.value:12.2f} {compared:>14} {ratio:>8}  {one.target}{met}")
    rows = [
        {"name": one.name, "value": one.value, "ratio": one.ratio, "target": one.target}
        for one in figures
    ]
    Path("bench/results.json").write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(one.met for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
