"""Services of systemd, the machine's or a user's, as a check needs them: written, started, ended."""

import os
import pwd
import subprocess
from pathlib import Path

from factoryd.share import shared_file
from tests.vm.guest.waiting import wait_until

CGROUPS = Path("/sys/fs/cgroup")
START_S = 120.0
"""How long an emulated machine may take to start a daemon."""

TEXT = """
[Unit]
StartLimitIntervalSec=0

[Service]
Type=notify
{more}
Delegate=yes
KillMode=process
Restart=on-failure
RestartSec=100ms
TimeoutStartSec={start_s:g}
TimeoutStopSec={start_s:g}
"""

SHIPPED = """{shipped}
[Unit]
StartLimitIntervalSec=0

[Service]
ExecStart=
ExecStopPost=
ExecReload=
{more}
RestartSec=100ms
WatchdogSec={start_s:g}
TimeoutStartSec={start_s:g}
TimeoutStopSec={start_s:g}
"""
"""The unit that factoryd comes with, in another place and for a slow machine."""


class User:
    """Whose service manager a service belongs to, and how that one is called."""

    def __init__(self, name: str | None = None) -> None:
        self.account = pwd.getpwnam(name) if name else None

    def systemctl(self, *words: str, check: bool = True) -> str:
        """Run `systemctl` and return what it prints."""
        if self.account is None:
            return run("systemctl", *words, check=check)
        environ = {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{self.account.pw_uid}"}
        own = {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return run("systemctl", "--user", *words, check=check, env=environ, **own)

    def unit_file(self, name: str) -> Path:
        """Return where a unit of this name is put."""
        if self.account is None:
            return Path("/run/systemd/system", name)
        return Path("/run/user", str(self.account.pw_uid), "systemd/user", name)


class Unit:
    """One service."""

    def __init__(self, name: str, user: User, *, shipped: bool = False, **settings: str) -> None:
        self.name = f"{name}.service"
        self._user = user
        more = "\n".join(f"{key}={value}" for key, value in settings.items())
        file = user.unit_file(self.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        # One that systemd has never heard of needs no reload, which is slow.
        text = TEXT.format(more=more, start_s=START_S)
        if shipped:
            own = shared_file("systemd/factoryd.service").read_text()
            text = SHIPPED.format(shipped=own, more=more, start_s=START_S)
        file.write_text(text)

    def start(self) -> None:
        """Start it; return once it has said that it is ready."""
        self._user.systemctl("start", self.name)

    def stop(self) -> None:
        """End it in good order: nothing of it may be left, and it must have ended with 0."""
        cgroup = self.cgroup
        self._user.systemctl("stop", self.name)
        assert not cgroup.exists(), f"left after the stop: {processes(cgroup)}"
        assert self.show("Result") == "success", self.show("Result")

    def end(self) -> None:
        """Kill whatever it still is, for good."""
        self._user.systemctl("kill", "--signal=KILL", self.name, check=False)
        self._user.systemctl("stop", self.name, check=False)
        self._user.systemctl("reset-failed", self.name, check=False)

    def show(self, key: str) -> str:
        """Return one of its properties."""
        return self._user.systemctl("show", "--value", "--property", key, self.name).strip()

    @property
    def main_pid(self) -> int:
        """Return the daemon's process, 0 when there is none."""
        return int(self.show("MainPID"))

    @property
    def cgroup(self) -> Path:
        """Return the directory of the cgroup that systemd has made for it."""
        shown = self.show("ControlGroup")
        assert shown, f"{self.name} has no cgroup: it is {self.show('ActiveState')}"
        return Path(f"{CGROUPS}{shown}")

    def wait_restarted(self, old_pid: int) -> int:
        """Return the daemon's new process once systemd has replaced the old one."""

        def is_new() -> bool:
            shown = self._user.systemctl("show", "--property=ActiveState,MainPID", self.name)
            return "ActiveState=active" in shown and f"MainPID={old_pid}\n" not in shown

        wait_until(is_new, f"{self.name} is not restarted", START_S, every_s=0.5)
        return self.main_pid

    def journal(self) -> str:
        """Return the newest of what it and systemd have said about it."""
        field = "--user-unit" if self._user.account else "--unit"
        return run("journalctl", "--no-pager", "--lines=60", f"{field}={self.name}", check=False)


def run(*words: str, check: bool = True, **how: object) -> str:
    """Run a program to its end and return what it prints; a failure is told in its words."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    said = str(done.stdout)
    if check:
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}: {said}{done.stderr}"
    return said


def processes(cgroup: Path) -> dict[int, str]:
    """Return what runs in a cgroup and below it: command lines by pid."""
    found = {}
    for group, _, _ in os.walk(cgroup):  # passes over those that go meanwhile
        file = Path(group, "cgroup.procs")
        for pid in file.read_text().split() if file.exists() else ():
            words = Path("/proc", pid, "cmdline")
            found[int(pid)] = words.read_text().replace("\0", " ") if words.exists() else "(ended)"
    return found


def cgroup_of(pid: int) -> Path:
    """Return the directory of the cgroup a process is in."""
    line = Path("/proc", str(pid), "cgroup").read_text()
    assert line.startswith("0::/"), f"not pure cgroup v2: {line}"
    return Path(f"{CGROUPS}{line[3:].strip()}")
