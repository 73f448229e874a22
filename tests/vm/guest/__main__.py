"""Runs checks in a machine that is there for nothing else, and prints one JSON line for each.

    python3 -m tests.vm.guest SUITE [CHECK...]

A line says `check`, `took_s`, and `trouble`: "" or what went wrong, with the daemon's journal.
"""

import json
import sys
import time
import traceback

from tests.vm.guest.table import CHECKS, Check


def examine(check: Check) -> str:
    """Run a check and return what went wrong."""
    try:
        check()
    except Exception:  # noqa: BLE001  one check's failure is told, and the next one runs
        return traceback.format_exc()
    return ""


def main() -> None:
    """Run the checks named, or all of the suite."""
    suite, *names = sys.argv[1:]
    for name in names or CHECKS[suite]:
        began = time.monotonic()
        trouble = examine(CHECKS[suite][name])
        line = {"check": name, "took_s": round(time.monotonic() - began, 1), "trouble": trouble}
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
