"""factoryd as an operator installs it in a machine: its service, its issues, its agents."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tests.systemd.machines import Machine, wait_until
from tests.vm.payload import PYTHONS, pip

AGENT = Path(__file__).parents[1] / "fakes" / "agent.py"
HOME = "/opt/factoryd"
"""The virtual environment the product is installed in."""
PLACE = "/srv/factory"
"""Where issues are put and agents work."""
SERVICE = "factoryd.service"
UNITS = (SERVICE, "factoryd.socket", "factoryd-reap.timer", "factoryd-reap.service")

CONFIG = f"""
[factory]
slots = 20
poll_interval = "1s"

[dispatch]
max_attempts = 1

[resume]
max_resumes = 0

[stop]
grace = "500ms"

[safety]
require_label = ""

[heartbeat]
interval = "1s"
stale_after = "5s"

[[sources]]
kind = "folder"
path = "{PLACE}/issues"

[repos.here]
path = "{PLACE}/work"
workspace = "none"

[[routes]]
default = true
repo = "here"
recipe = "one"

[recipes.one]
stages = [["worker"]]

[agents.worker]
kind = "command"
name = "w"
command = ["/bin/sh", "-eu", "{{issue_file}}"]
"""
"""An issue's text is the script its agent runs: its title is a comment there."""

ESCAPES = "setsid double-fork escape deep:3"
"""What an agent does so that it is hard to find all of it; see `tests/fakes/agent.py`."""

LIMITS = """
[Unit]
StartLimitIntervalSec=60
StartLimitBurst=5
[Service]
RestartSec=100ms
WatchdogSec=4
TimeoutStopSec=8
"""
"""So that a test need not wait as long as an operator would want systemd to."""

STAND_IN = f"""
[Service]
Type=notify
NotifyAccess=main
ExecStart={HOME}/bin/factoryd run
ExecStopPost={HOME}/bin/factoryd reap --after-stop
WatchdogSec=30
Delegate=yes
KillMode=process
Restart=on-failure
RestartForceExitStatus=125
StateDirectory=factoryd
RuntimeDirectory=factoryd
RuntimeDirectoryPreserve=restart
"""


def play(*steps: str) -> str:
    """Return a script that becomes `tests/fakes/agent.py`, says that it is up, and goes on.

    It ends with 0 once there is a file `finish-KEY`.
    """
    words = " ".join(steps)
    return f"exec python3 {PLACE}/agent.py {words} say:up await:finish-$FACTORY_ISSUE"


class Factory:
    """The service in a machine, with a place of its own for issues and work."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def install(self, wheels: Path) -> None:
        """Install the product as a person would who has its wheels, and its units."""
        shutil.copytree(wheels, self.machine.root / "srv" / "wheels")
        run = self.machine.run
        run("python3", "-m", "venv", HOME)
        offline = ("--no-index", "--find-links=/srv/wheels", "--disable-pip-version-check")
        run(f"{HOME}/bin/pip", "install", "--quiet", *offline, "factoryd")
        run("ln", "-s", f"{HOME}/bin/factoryd", f"{HOME}/bin/factoryctl", "/usr/local/bin/")
        self.machine.put(f"/run/systemd/system/{SERVICE}", STAND_IN)
        self.systemctl("daemon-reload")

    def prepare(self) -> None:
        """Make all as it is on the first day: nothing runs, nothing is known, nothing waits."""
        self.systemctl("stop", *UNITS, check=False)
        self.systemctl("reset-failed", *UNITS, check=False)
        run = self.machine.run
        run("rm", "-rf", PLACE, "/var/lib/factoryd", "/run/factoryd")
        for name in ("work", "issues/ready"):
            self.machine.path(f"{PLACE}/{name}").mkdir(parents=True)
        shutil.copy(AGENT, self.machine.path(f"{PLACE}/agent.py"))
        self.machine.put("/etc/factoryd/factoryd.toml", CONFIG)

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run `systemctl` and return what it prints."""
        return self.machine.run("systemctl", *words, check=check)

    def ctl(self, *words: str, check: bool = True, user: str | None = None) -> str:
        """Run `factoryctl` and return what it prints."""
        return self.machine.run("factoryctl", *words, check=check, user=user)

    def show(self, key: str, unit: str = SERVICE) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", "--property", key, unit).strip()

    def set(self, text: str, unit: str = SERVICE) -> None:
        """Change a unit for this test."""
        self.machine.put(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.systemctl("daemon-reload")

    def put(self, key: str, script: str) -> None:
        """Put an issue, complete at once, where the daemon finds it."""
        hidden = self.machine.path(f"{PLACE}/issues/ready/.{key}.tmp")
        hidden.write_text(f"---\nkey: {key}\ntitle: Test\n---\n{script}\n")
        hidden.rename(hidden.with_name(f"{key}.md"))

    def status(self) -> Any:
        """Return what `factoryctl status --json` says."""
        return json.loads(self.ctl("--json", "status"))

    def agent(self, key: str) -> Any:
        """Return the one agent of an issue as status shows it."""
        (issue,) = [one for one in self.status()["issues"] if one["key"] == key]
        (agent,) = issue["agents"]
        return agent

    def wait_up(self, *keys: str) -> None:
        """Return once an agent of each issue has written `up` to its output."""
        for key in keys:
            wait_until(partial(self._is_up, key), f"no agent of {key} is up")

    def _is_up(self, key: str) -> bool:
        files = self.machine.path(f"/var/lib/factoryd/runs/{key}").glob("*/output")
        return any(b"up" in file.read_bytes() for file in files)

    def finish(self, key: str) -> None:
        """Let the agent of an issue end; return once the issue is done."""
        self.machine.path(f"{PLACE}/work/finish-{key}").touch()
        self.wait_filed(key, "done")

    def wait_filed(self, key: str, folder: str) -> None:
        """Return once the outcome of an issue has brought its file where such files go."""
        file = self.machine.path(f"{PLACE}/issues/{folder}/{key}.md")
        wait_until(file.exists, f"{key} is not in {folder}")

    @property
    def cgroup(self) -> str:
        """Return the service's cgroup."""
        return self.show("ControlGroup")

    def tree(self) -> dict[int, str]:
        """Return all that agents run: command lines by the pid each has here.

        Whatever is in a cgroup of an agent, or has the mark of a run in its environment.
        """
        inside = self.machine.processes("system.slice/factoryd.service/agents")
        marked = {
            pid: words
            for pid, words in self.machine.processes().items()
            if b"FACTORY_RUN=" in _environ(pid)
        }
        return inside | marked

    def journal(self, *words: str) -> str:
        """Return what `journalctl` shows."""
        return self.machine.run("journalctl", "--no-pager", *words, check=False)


def _environ(pid: int) -> bytes:
    try:
        return Path("/proc", str(pid), "environ").read_bytes()
    except OSError:
        return b""


def make_wheels(wheel: Path, suite: str, directory: Path) -> None:
    """Fill a directory with the product's wheel and, for the Python of a Debian, all it needs."""
    pip(
        *("download", str(wheel), "--dest", str(directory)),
        *("--find-links", str(wheel.parent), "--only-binary", ":all:"),
        *("--python-version", PYTHONS[suite]),
        *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
    )
