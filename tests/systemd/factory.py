"""factoryd as an operator installs it in a machine: its service, its issues, its agents."""

import json
import re
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from factoryd.core.model import ProcessIdentity
from tests.groups import walk_groups
from tests.systemd.machines import WITHIN_S, Machine, wait_until
from tests.vm.payload import PYTHONS, pip

AGENT = Path(__file__).parents[1] / "fakes" / "agent.py"
HOME = "/opt/factoryd"
"""The virtual environment the product is installed in."""
PLACE = "/srv/factory"
"""Where issues are put and agents work."""
SERVICE = "factoryd.service"
NOT_ANSWERING = 5
"""How `factoryctl` ends when a daemon that is about to come has not answered in 10 s."""
UNITS = (SERVICE, "factoryd.socket", "factoryd-reap.timer", "factoryd-reap.service")

CONFIG = f"""
[factory]
slots = 20
poll_interval = "1s"

[dispatch]
max_attempts = 1
error_cooldown = "100ms"

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

SITE = f"""
[Service]
ReadWritePaths={PLACE}
RestartSec=100ms
"""
"""What is particular to this machine; an operator would want a longer pause."""


OFFLINE = """
[global]
no-index = yes
find-links = /srv/wheels
disable-pip-version-check = yes
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
        """Install the product as a person would, with its wheels in place of the network."""
        machine = self.machine
        shutil.copytree(wheels, machine.root / "srv" / "wheels")
        machine.put("/etc/pip.conf", OFFLINE)
        machine.run("python3", "-m", "venv", HOME)
        machine.run(f"{HOME}/bin/pip", "install", "--quiet", "factoryd")
        programs = (f"{HOME}/bin/factoryd", f"{HOME}/bin/factoryctl")
        machine.run("ln", "--symbolic", *programs, "/usr/local/bin/")
        self.install_units()

    def install_units(self) -> None:
        """Put the units and all that goes with them in place, and what differs on this machine."""
        self.machine.run("factoryd", "install-units")
        self.machine.run("systemd-sysusers")
        self.machine.run("systemd-tmpfiles", "--create", "factoryd.conf")
        self.machine.put(f"/etc/systemd/system/{SERVICE}.d/site.conf", SITE)
        self.systemctl("daemon-reload")

    def prepare(self) -> None:
        """Make all as it is on the first day: nothing runs, nothing is known, nothing waits."""
        run, path = self.machine.run, self.machine.path
        self.machine.call("systemctl", "stop", *UNITS)
        self.machine.call("systemctl", "reset-failed", *UNITS)
        self.kill_tree()
        run("rm", "-rf", PLACE, "/var/lib/factoryd", "/run/factoryd")
        changed = [path(f"/run/systemd/system/{unit}.d") for unit in UNITS]
        for directory in (each for each in changed if each.exists()):
            shutil.rmtree(directory)
        self.systemctl("daemon-reload")
        run("systemd-tmpfiles", "--create", "factoryd.conf")
        for name in ("work", "issues/ready"):
            path(f"{PLACE}/{name}").mkdir(parents=True)
        shutil.copy(AGENT, path(f"{PLACE}/agent.py"))
        run("chown", "-R", "factoryd:", PLACE)
        self.configure()

    def configure(self, **changes: str) -> None:
        """Write the configuration, with other values for some of its keys."""
        text = CONFIG
        for key, value in changes.items():
            text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert found == 1, f"{key} is there {found} times"
        self.machine.put("/etc/factoryd/factoryd.toml", text)

    def systemctl(self, *words: str) -> str:
        """Run `systemctl` and return what it prints."""
        return self.machine.run("systemctl", *words)

    def ctl(self, *words: str, user: str | None = None) -> str:
        """Run `factoryctl` and return what it prints."""
        return self.machine.run("factoryctl", *words, user=user)

    def start(self, *keys: str, agent: str = "") -> None:
        """Start the service, and an agent for an issue of each key; return once all are up."""
        self.systemctl("start", SERVICE)
        for key in keys:
            self.put(key, agent or play(ESCAPES))
        self.wait_up(*keys)

    def show(self, key: str, unit: str = SERVICE) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", "--property", key, unit).strip()

    @property
    def main_pid(self) -> int:
        """Return the daemon's process as the machine counts, 0 when there is none."""
        return int(self.show("MainPID"))

    def signal(self, name: str) -> None:
        """Send the daemon, and it alone, a signal."""
        self.systemctl("kill", "--kill-whom=main", f"--signal={name}", SERVICE)

    def wait_replaced(self, old: int) -> int:
        """Return the daemon's new process once systemd has replaced the old one."""

        def is_new() -> bool:
            shown = self.systemctl("show", "--property=ActiveState,MainPID", SERVICE)
            return "ActiveState=active" in shown and f"MainPID={old}\n" not in shown

        wait_until(is_new, "the daemon is not replaced")
        return self.main_pid

    def change(self, text: str, unit: str = SERVICE) -> None:
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

    def wait_status(self, user: str | None = None, env: Mapping[str, str] | None = None) -> Any:
        """Return the same, however long a daemon takes to start that the caller waits for."""
        until, words = time.monotonic() + WITHIN_S, ("factoryctl", "--json", "status")
        done = self.machine.call(*words, user=user, env=env)
        while done.returncode == NOT_ANSWERING and time.monotonic() < until:
            done = self.machine.call(*words, user=user, env=env)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def facts(self, key: str) -> str:
        """Return what the ledger's file has of an issue; a daemon that hangs is not asked."""
        state = ("--state-dir", "/var/lib/factoryd")
        return self.machine.run("factoryd", "events", *state, "--issue", key, "--json")

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

    def wait_runs(self, key: str, number: int) -> None:
        """Return once so many runs of an issue have written `up`."""
        files = self.machine.path(f"/var/lib/factoryd/runs/{key}")
        wait_until(
            lambda: sum(b"up" in file.read_bytes() for file in files.glob("*/output")) >= number,
            f"there are no {number} runs of {key}",
        )

    def finish(self, *keys: str) -> None:
        """Let the agents of issues end; return once the issues are done."""
        for key in keys:
            self.machine.path(f"{PLACE}/work/finish-{key}").touch()
        for key in keys:
            self.wait_filed(key, "done")

    def wait_filed(self, key: str, folder: str) -> None:
        """Return once the outcome of an issue has brought its file where such files go."""
        file = self.machine.path(f"{PLACE}/issues/{folder}/{key}.md")
        wait_until(file.exists, f"{key} is not in {folder}")

    def tree(self) -> set[ProcessIdentity]:
        """Return all that agents run.

        Whatever is in a cgroup of an agent, or has the mark of a run in its environment.
        """
        return {
            one.identity
            for one in self.machine.processes()
            if "factoryd.service/agents/" in one.cgroup
            or any(variable.startswith("FACTORY_RUN=") for variable in one.environ)
        }

    def kill_tree(self) -> None:
        """Kill what a failed test has left of its agents."""
        for group in walk_groups(self.machine.cgroups):
            if group.parts[-2:] == ("factoryd.service", "agents"):
                (group / "cgroup.kill").write_text("1")
        wait_until(lambda: not self.tree(), "agents cannot be killed")

    def journal(self, *words: str) -> str:
        """Return what `journalctl` shows."""
        return self.machine.run("journalctl", "--no-pager", *words)


def make_wheels(wheel: Path, suite: str, directory: Path) -> None:
    """Fill a directory with what the Python of a Debian needs for the product, and pipx for itself."""
    pip(
        *("download", str(wheel), "pip", "setuptools", "wheel", "--dest", str(directory)),
        *("--find-links", str(wheel.parent), "--only-binary", ":all:"),
        *("--python-version", PYTHONS[suite]),
        *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
    )
