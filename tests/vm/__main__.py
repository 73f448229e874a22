"""Runs checks by hand: `.venv/bin/python -m tests.vm SUITE [CHECK...]`; ends with 1 on trouble."""

import sys

from tests.vm.guest.table import CHECKS
from tests.vm.machines import examine


def main() -> int:
    """Run the checks named, or all of the suite, and print what each came to."""
    suite, *checks = sys.argv[1:]
    reports = examine({suite: checks or list(CHECKS[suite])})
    for (_, check), report in reports.items():
        sys.stdout.write(f"{report.took_s:6.1f} s  {check}\n{report.trouble}")
    return int(any(report.trouble for report in reports.values()))


if __name__ == "__main__":
    sys.exit(main())
