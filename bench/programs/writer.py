"""Writes a megabyte a second in lines that begin with the time; usage: `writer.py SECONDS`.

It keeps to its schedule as well as whoever takes its output lets it.
"""

import os
import sys
import time

LINE = 100
CHUNK = 50_000
PER_S = 20


def main() -> None:
    """Write chunk after chunk."""
    began = time.monotonic()
    for number in range(1, int(sys.argv[1]) * PER_S + 1):
        line = f"{time.monotonic():.6f} ".encode().ljust(LINE - 1, b".") + b"\n"
        left = memoryview(line * (CHUNK // LINE))
        while left:
            left = left[os.write(1, left) :]
        time.sleep(max(0, began + number / PER_S - time.monotonic()))


if __name__ == "__main__":
    main()
