"""A machine to try things in: `.venv/bin/python -m tests.systemd SUITE [COMMAND...]`, else a shell."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.systemd.factory import Factory, make_wheels
from tests.systemd.machines import a_machine
from tests.vm import payload


def main() -> int:
    """Boot, install the product, run a command there and end as it ends."""
    suite, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="factoryd-systemd-") as name:
        directory = Path(name)
        make_wheels(payload.make_wheels(directory / "host"), suite, directory / "wheels")
        with a_machine(suite, directory) as machine:
            factory = Factory(machine)
            factory.install(directory / "wheels")
            factory.prepare()
            return subprocess.run([*machine.entering, *(command or ["sh"])], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
