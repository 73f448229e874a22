"""Who may do what with the service of the machine, and one of a user's own."""

import json

from tests.systemd.factory import CONFIG, PLACE, SERVICE, UNITS, Factory
from tests.systemd.machines import BOOTED, wait_until

pytestmark = BOOTED

DENIED = 6

OWN = """
: >up
exec sleep 600
"""


def test_the_groups_of_a_person_say_what_they_may_do(factory: Factory) -> None:
    run, call = factory.machine.run, factory.machine.call
    groups = {"olga": "factory-operators", "rita": "factory-readers", "nora": "nogroup"}
    for person, group in groups.items():
        run("useradd", "--create-home", "--groups", group, person)
    factory.start("AR-1")
    assert factory.ctl("pause", user="olga")
    assert factory.status()["daemon"]["paused"]
    assert json.loads(factory.ctl("--json", "status", user="rita"))["daemon"]["paused"]
    assert call("factoryctl", "resume", user="rita").returncode == DENIED
    assert call("factoryctl", "status", user="nora").returncode == DENIED
    assert call("factoryctl", "kill", "--all", "--yes", user="nora").returncode == DENIED
    assert factory.status()["daemon"]["paused"]
    factory.ctl("resume", user="olga")
    factory.ctl("kill", "AR-1", "--yes", user="olga")
    assert not factory.tree()


def test_a_user_has_a_service_of_their_own(factory: Factory) -> None:
    machine = factory.machine
    machine.run("useradd", "--create-home", "uma")
    machine.run("loginctl", "enable-linger", "uma")
    uid = machine.run("id", "--user", "uma").strip()
    wait_until(machine.path(f"/run/user/{uid}/systemd/private").exists, "no systemd of uma's")

    env = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}

    def run(*words: str) -> str:
        return machine.run(*words, user="uma", env=env)

    machine.put("/home/uma/.config/factoryd/factoryd.toml", CONFIG.replace(PLACE, "/home/uma"))
    machine.put("/home/uma/issues/ready/AR-1.md", f"---\nkey: AR-1\ntitle: Test\n---\n{OWN}")
    machine.path("/home/uma/work").mkdir()
    machine.run("chown", "-R", "uma:", "/home/uma")
    run("factoryd", "install-units", "--user")
    run("systemctl", "--user", "daemon-reload")
    assert run("systemd-analyze", "--user", "verify", "--man=no", *UNITS) == ""
    run("systemctl", "--user", "start", SERVICE)
    wait_until(lambda: machine.path("/home/uma/work/up").exists(), "no agent is up")
    before = factory.tree()
    hers = {one.identity for one in machine.processes() if f"user@{uid}.service/" in one.cgroup}
    assert before
    assert before <= hers
    old = run("systemctl", "--user", "show", "--value", "--property=MainPID", SERVICE)
    run("systemctl", "--user", "kill", "--kill-whom=main", "--signal=KILL", SERVICE)
    shown = factory.wait_status("uma", env)["daemon"]
    assert shown["pid"] != int(old)
    assert factory.tree() == before
    run("systemctl", "--user", "stop", SERVICE)
    assert not factory.tree()
    run("factoryd", "uninstall-units", "--user")
    machine.run("loginctl", "disable-linger", "uma")
