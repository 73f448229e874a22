"""The unit files, as systemd and other programs see them."""

import json

import pytest

from tests.systemd.factory import SERVICE, UNITS, Factory
from tests.systemd.machines import BOOTED

pytestmark = BOOTED

EXPOSURE = {SERVICE: 36, "factoryd-reap.service": 14}
"""What `systemd-analyze security` may say at most, in tenths: less is better."""

CONTROL = ("unix:/run/factoryd/control.sock", "io.factoryd.Control")


def test_systemd_finds_no_mistake_in_the_units(factory: Factory) -> None:
    done = factory.machine.call("systemd-analyze", "verify", "--man=no", *UNITS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_units_are_shut_as_tight_as_they_are_said_to_be(factory: Factory) -> None:
    for unit, tenths in EXPOSURE.items():
        factory.machine.run("systemd-analyze", "security", f"--threshold={tenths}", unit)


def test_what_is_shown_of_the_units_names_this_installation(factory: Factory) -> None:
    shown = factory.systemctl("cat", *UNITS)
    assert "ExecStart=/opt/factoryd/bin/factoryd run" in shown
    assert "/usr/bin/factory" not in shown


def test_an_installation_by_pipx_serves_as_well(factory: Factory) -> None:
    places = {"PIPX_HOME": "/opt/pipx", "PIPX_BIN_DIR": "/opt/pipx/bin"}
    factory.machine.run("pipx", "install", "factoryd", env=places)
    try:
        factory.machine.run("/opt/pipx/bin/factoryd", "install-units")
        factory.systemctl("daemon-reload")
        assert "ExecStart=/opt/pipx/" in factory.systemctl("cat", SERVICE)
        factory.start("AR-1")
        assert any("/opt/pipx/" in " ".join(one.argv) for one in factory.machine.processes())
        factory.systemctl("stop", SERVICE)
        assert not factory.tree()
    finally:
        factory.install_units()


@pytest.mark.parametrize("factory", ["trixie"], indirect=True)
def test_varlinkctl_talks_to_the_daemon(factory: Factory) -> None:
    factory.start("AR-1")
    run, (socket, interface) = factory.machine.run, CONTROL
    assert interface in run("varlinkctl", "info", socket)
    assert "method Status" in run("varlinkctl", "introspect", socket, interface)
    shown = json.loads(
        run("varlinkctl", "call", "--json=short", socket, f"{interface}.Status", "{}")
    )
    assert shown["daemon"]["pid"] == factory.main_pid
    assert [issue["key"] for issue in shown["issues"]] == ["AR-1"]
    killed = run(
        "varlinkctl",
        "call",
        "--more",
        "--json=short",
        socket,
        f"{interface}.Kill",
        '{"targets": ["AR-1"]}',
    )
    assert '"emptied":true' in killed
    assert not factory.tree()
