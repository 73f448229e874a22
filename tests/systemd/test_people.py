"""Who may do what with the service of the machine, and one of a user's own."""

import json

from tests.systemd.factory import Factory
from tests.systemd.machines import BOOTED

pytestmark = BOOTED

DENIED = 6


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
    assert factory.tree() == {}


def test_a_user_has_a_service_of_their_own(factory: Factory) -> None:
    raise AssertionError
