"""Someone at a terminal, who types a line into a shell and has it completed."""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0
"""A deadline for what takes well under a second on an idle machine."""

HOME_KEY, END_KEY = "\x01", "\x05"


class Typist:
    """A shell on a terminal; `wait` for what it prints, or have a line completed."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._shown = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._terminal, keys.encode())

    def wait(self, pattern: str) -> re.Match[str]:
        """Return the first match in what was printed since the last one."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(pattern, self._shown, re.MULTILINE)):
            ready, _, _ = select.select([self._terminal], [], [], deadline - time.monotonic())
            assert ready, f"{pattern} was not printed: {self._shown!r}"
            self._shown += os.read(self._terminal, 65536).decode()
        self._shown = self._shown[found.end() :]
        return found

    def complete(self, line: str) -> str:
        """Return what a line is once the key for completion was pressed at its end."""
        self.type(f"{line}\t{HOME_KEY}echo '<{END_KEY}>'\r")
        return self.wait(r"^<(.*)>\r$")[1]


@contextmanager
def a_shell(command: Sequence[str], environ: Mapping[str, str], home: Path) -> Iterator[Typist]:
    """Run an interactive shell on a terminal of its own, ended on leaving."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environ, "HOME": str(home), "TERM": "dumb"},
            cwd=home,
        ) as shell:
            os.close(theirs)
            theirs = -1
            try:
                yield Typist(ours)
            finally:
                shell.kill()
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
