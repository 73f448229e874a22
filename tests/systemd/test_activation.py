"""The control socket, which systemd holds: whoever calls while no daemon is there waits for one."""

from tests.systemd.factory import SERVICE, Factory
from tests.systemd.machines import BOOTED, wait_until

pytestmark = BOOTED

NOT_RUNNING = 3


def test_a_status_after_a_crash_waits_for_the_next_daemon(factory: Factory) -> None:
    factory.change("[Service]\nRestartSec=1")
    factory.start("AR-1")
    old, before = factory.main_pid, factory.tree()
    factory.signal("KILL")
    shown = factory.status()
    assert shown["daemon"]["pid"] not in {0, old}
    assert shown["daemon"]["adopted_runs"] == 1
    assert factory.tree() == before


def test_a_status_during_a_restart_never_fails(factory: Factory) -> None:
    factory.start("AR-1")
    old = pid = factory.main_pid
    factory.systemctl("restart", "--no-block", SERVICE)
    while pid == old:
        pid = factory.wait_status()["daemon"]["pid"]


def test_nobody_starts_a_stopped_daemon_by_asking_how_it_is(factory: Factory) -> None:
    factory.start()
    factory.systemctl("stop", SERVICE)
    wait_until(
        lambda: factory.show("ActiveState", "factoryd.socket") == "inactive", "the socket stays"
    )
    done = factory.machine.call("factoryctl", "status")
    assert done.returncode == NOT_RUNNING, done
    assert factory.show("ActiveState") == "inactive"


def test_the_first_caller_of_an_enabled_socket_starts_the_daemon(factory: Factory) -> None:
    factory.systemctl("enable", "--now", "factoryd.socket")
    try:
        assert factory.show("ActiveState") == "inactive"
        assert factory.wait_status()["daemon"]["pid"] == factory.main_pid
        factory.systemctl("stop", SERVICE)
        assert factory.show("ActiveState", "factoryd.socket") == "active"
    finally:
        factory.systemctl("disable", "--now", "factoryd.socket")
