"""What goes wrong around the service: memory, the journal, power, and agents nobody looks after."""

from functools import partial

from tests.systemd.factory import PLACE, SERVICE, Factory
from tests.systemd.machines import BOOTED, wait_until

pytestmark = BOOTED

REAP_TIMER = "factoryd-reap.timer"
MIB = 1 << 20

HOG = """
echo up
exec python3 -c '
import os, time
while not os.path.exists("hog"):
    time.sleep(0.1)
bytearray(512 << 20)'
"""
"""Once it is up it starts no process, so that all of it can be moved to another group."""

TALK = """
echo up
until [ -e "finish-$FACTORY_ISSUE" ]; do echo tick; sleep 0.1; done
echo after all
"""


def test_an_agent_that_runs_out_of_memory_fails_alone(factory: Factory) -> None:
    factory.change("[Service]\nMemoryMax=192M")
    factory.start("AR-1")
    old, others = factory.main_pid, factory.tree()
    factory.start("AR-2", agent=HOG)
    factory.machine.limit_memory(factory.tree() - others, 64 * MIB)
    factory.machine.path(f"{PLACE}/work/hog").touch()
    factory.wait_filed("AR-2", "failed")
    assert factory.machine.out_of_memory("system.slice/factoryd.service") > 0
    assert factory.tree() == others
    assert (factory.show("ActiveState"), factory.main_pid) == ("active", old)
    factory.finish("AR-1")


def test_a_journald_that_is_restarted_holds_nothing_up(factory: Factory) -> None:
    factory.start("AR-1", agent=TALK)
    old = factory.main_pid
    factory.systemctl("restart", "systemd-journald.service")
    factory.finish("AR-1")
    wait_until(lambda: "after all" in factory.journal("-t", "ar-1-w"), "output is lost")
    wait_until(lambda: "AR-1: done" in factory.journal("-u", SERVICE), "a fact is lost")
    assert factory.main_pid == old


def test_the_timer_ends_agents_that_no_daemon_comes_back_for(factory: Factory) -> None:
    factory.change("[Timer]\nOnCalendar=\nOnCalendar=*:*:0/2\nAccuracySec=100ms", REAP_TIMER)
    factory.change("[Service]\nRestartSec=1h")
    factory.start("AR-1", "AR-2")
    factory.signal("KILL")
    wait_until(lambda: factory.show("SubState") == "auto-restart", "no restart is planned")
    before = factory.tree()
    assert before
    seen = factory.show("LastTriggerUSec", REAP_TIMER)
    wait_until(lambda: factory.show("LastTriggerUSec", REAP_TIMER) != seen, "no timer")
    assert factory.tree() == before, "systemd would have started a daemon for them"
    factory.systemctl("stop", SERVICE)
    wait_until(lambda: not factory.tree(), "the timer leaves agents")
    reaped = partial(factory.journal, "-u", "factoryd-reap.service")
    wait_until(lambda: "emptied" in reaped(), "the reaper does not say so")


def test_the_reaper_leaves_the_agents_of_a_running_daemon_alone(factory: Factory) -> None:
    factory.start("AR-1")
    before = factory.tree()
    factory.systemctl("start", "factoryd-reap.service")
    assert factory.tree() == before


def test_a_boot_after_a_power_cut_takes_the_issues_up_again(factory: Factory) -> None:
    factory.configure(max_attempts="2")
    factory.systemctl("enable", SERVICE)
    factory.start("AR-1", "AR-2")
    factory.machine.cut_power()
    factory.machine.boot()
    wait_until(lambda: factory.show("ActiveState") == "active", "the daemon does not start")
    factory.systemctl("disable", SERVICE)
    factory.wait_runs("AR-1", 2)
    factory.wait_runs("AR-2", 2)
    assert factory.status()["handoffs"] == []
    factory.finish("AR-1", "AR-2")
