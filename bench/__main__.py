"""Runs all measurements and prints a table: figure, what it is compared with, ratio, target."""

import json
import sys
from pathlib import Path

from bench.measure import (
    Figure,
    command_line,
    idle,
    start_agents,
    status_of_many,
)


def main() -> int:
    """Measure, print, and store the figures; the exit status says whether all targets were met."""
    figures: list[Figure] = []
    for measurement in (start_agents, status_of_many, command_line, idle):
        sys.stderr.write(f"{measurement.__name__} ...\n")
        figures += measurement()
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
    sys.exit(main())
