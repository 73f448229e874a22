"""The units as systemd reads them: without a word of complaint, and as closed as is claimed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from factoryd.adapters.systemd import find_version
from factoryd.core.errors import KEEP_AGENTS_STATUS, BadUsage
from factoryd.core.installation import for_machine
from factoryd.daemon import MAX_BUSY_S
from factoryd.installing import Target, install_units

ROOT = Path(__file__).parents[2]
UNITS = ["factoryd.service", "factoryd.socket", "factoryd-reap.service", "factoryd-reap.timer"]

EXPOSURE = {"factoryd.service": 3.8, "factoryd-reap.service": 1.6}
"""What `systemd-analyze security` may come to: 0 is closed, 10 is open."""

NOT_FOR_USERS = {
    *("User", "Group", "StateDirectory", "StateDirectoryMode", "LogsDirectory"),
    *("LogsDirectoryMode", "ConfigurationDirectory", "ProtectSystem", "ProtectHome"),
    *("ReadWritePaths", "CapabilityBoundingSet", "PrivateDevices", "PrivateNetwork"),
    *("PrivateTmp", "ProtectClock", "ProtectHostname", "ProtectKernelModules"),
    *("ProtectKernelLogs", "RestrictNamespaces", "MemoryDenyWriteExecute"),
}
"""What a user's service manager cannot do, or does by making a namespace of users."""


def settings(name):
    """Return the assignments of a unit file, in order."""
    found = re.findall(r"^(\w+)=(.*)$", (ROOT / "systemd" / name).read_text(), re.MULTILINE)
    return [(key, value) for key, value in found]


def analyze(*words):
    if shutil.which("systemd-analyze") is None:
        assert os.environ.get("CI") != "true", "the Debian package systemd is missing"
        pytest.skip("missing: run .ci/need systemd")
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path):
    """Install for this machine's systemd, below another root; return where the units are."""
    install_units(Target(root=tmp_path), {}, trio.run(find_version))
    return tmp_path / for_machine().base[1:] / "lib/systemd/system"


def test_systemd_reads_the_units_without_a_word(installed):
    done = analyze("verify", "--man=no", *(str(installed / one) for one in UNITS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", EXPOSURE)
def test_a_service_is_as_closed_as_is_claimed(installed, unit):
    threshold = f"--threshold={EXPOSURE[unit] * 10:.0f}"
    done = analyze("security", "--offline=yes", "--no-pager", threshold, str(installed / unit))
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("unit", UNITS)
def test_a_users_unit_says_what_the_machines_says_but_for_what_users_cannot_have(unit):
    for_users = [
        (key, value.replace("+/bin", "/bin").replace("systemctl show", "systemctl --user show"))
        for key, value in settings(unit)
        if key not in NOT_FOR_USERS and value != "network-online.target"
    ]
    changed = {"multi-user.target": "default.target", "/run/factoryd": "%t/factoryd"}
    for machine, user in changed.items():
        for_users = [(key, value.replace(machine, user)) for key, value in for_users]
    assert settings(f"user/{unit}") == for_users


def test_the_units_agree_with_what_the_programs_do():
    service = dict(settings("factoryd.service"))
    assert service["RestartForceExitStatus"] == str(KEEP_AGENTS_STATUS)
    assert service["SuccessExitStatus"] == str(KEEP_AGENTS_STATUS)
    assert service["RestartPreventExitStatus"] == str(BadUsage.exit_status)
    assert int(service["WatchdogSec"]) >= MAX_BUSY_S
    socket = dict(settings("factoryd.socket"))
    assert socket["ListenStream"] == "/run/factoryd/control.sock"
    assert service["RuntimeDirectoryPreserve"] == "yes"  # or a stop takes the socket's file away


def test_nothing_keeps_agents_from_working_or_from_outliving_a_crash():
    service = dict(settings("factoryd.service"))
    assert service["KillMode"] == "process"
    assert "PrivateTmp" not in service  # systemd empties it when the daemon ends
    assert "MemoryDenyWriteExecute" not in service
    # A sandbox of an agent's own needs namespaces, and a /proc that nothing is laid over.
    hidden = {"ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset"}
    assert not service.keys() & {*hidden, "RestrictNamespaces", "ProtectControlGroups"}
