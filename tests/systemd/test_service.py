"""What an operator does with the service on an ordinary day."""

from tests.systemd.factory import ESCAPES, SERVICE, Factory, play
from tests.systemd.machines import BOOTED, wait_until

pytestmark = BOOTED


def test_a_started_service_answers_at_once_and_says_how_it_is(factory: Factory) -> None:
    factory.systemctl("start", SERVICE)
    shown = factory.status()["daemon"]
    assert (shown["state"], shown["containment"]) == ("running", "cgroup")
    assert shown["pid"] == factory.main_pid
    factory.start("AR-1")
    wait_until(lambda: "issues running: 1," in factory.show("StatusText"), "it says otherwise")
    assert "active (running)" in factory.systemctl("status", SERVICE)


def test_a_stop_leaves_no_process(factory: Factory) -> None:
    factory.start("AR-1", "AR-2")
    factory.start("AR-3", agent=play("ignore:TERM", ESCAPES))
    assert len(factory.tree()) > 15
    factory.systemctl("stop", SERVICE)
    assert not factory.tree()
    assert factory.show("Result") == "success"
    assert factory.show("ActiveState") == "inactive"


def test_a_restart_ends_all_agents_and_takes_the_issues_up_again(factory: Factory) -> None:
    factory.start("AR-1")
    old, before = factory.main_pid, factory.tree()
    factory.systemctl("restart", SERVICE)
    assert factory.main_pid != old
    factory.wait_runs("AR-1", 2)
    assert not before & factory.tree()
    factory.finish("AR-1")


def test_a_reload_changes_the_configuration_under_running_agents(factory: Factory) -> None:
    factory.start("AR-1")
    old, before = factory.main_pid, factory.tree()
    factory.configure(slots="7")
    factory.systemctl("reload", SERVICE)
    assert factory.status()["daemon"]["slots"] == 7
    assert (factory.main_pid, factory.tree()) == (old, before)
    factory.finish("AR-1")


def test_a_reload_of_a_mistake_fails_and_changes_nothing(factory: Factory) -> None:
    factory.start("AR-1")
    old, before = factory.main_pid, factory.tree()
    factory.configure(slots='"many"')
    assert factory.machine.call("systemctl", "reload", SERVICE).returncode != 0
    wait_until(lambda: "slots" in factory.journal("--unit", SERVICE), "nobody names the mistake")
    assert factory.status()["daemon"]["slots"] == 20
    assert (factory.show("ActiveState"), factory.main_pid) == ("active", old)
    assert factory.tree() == before


def test_a_restart_that_keeps_agents_gives_them_to_the_next_daemon(factory: Factory) -> None:
    factory.start("AR-1", "AR-2")
    old, before = factory.main_pid, factory.tree()
    assert "2 runs adopted" in factory.ctl("restart", "--keep-agents")
    assert factory.main_pid != old
    assert factory.tree() == before
    factory.finish("AR-1", "AR-2")


def test_a_stop_may_take_longer_than_systemd_would_wait(factory: Factory) -> None:
    factory.change("[Service]\nTimeoutStopSec=12")
    factory.configure(grace='"15s"')
    factory.start("AR-1", agent=play("ignore:TERM", ESCAPES))
    factory.systemctl("stop", SERVICE)
    assert not factory.tree()
    assert factory.show("Result") == "success"
