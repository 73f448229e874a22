"""A daemon that dies or hangs: a crash costs no agent, and a stop is a stop all the same."""

import pytest

from tests.systemd.factory import ESCAPES, SERVICE, Factory, play
from tests.systemd.machines import BOOTED, wait_until

pytestmark = BOOTED

REAP = "factoryd-reap.service"


def test_a_killed_daemon_loses_no_agent(factory: Factory) -> None:
    factory.start("AR-1", "AR-2")
    old, before = factory.main_pid, factory.tree()
    agent = factory.agent("AR-1")
    factory.signal("KILL")
    new = factory.wait_replaced(old)
    shown = factory.status()["daemon"]
    assert (shown["pid"], shown["adopted_runs"]) == (new, 2)
    assert factory.tree() == before
    assert factory.agent("AR-1")["run"] == agent["run"]
    factory.finish("AR-1")
    factory.systemctl("stop", SERVICE)
    assert not factory.tree()


def test_a_daemon_without_progress_is_killed_by_the_watchdog_and_loses_no_agent(
    factory: Factory,
) -> None:
    factory.change("[Service]\nWatchdogSec=8\nEnvironment=FACTORYD_FAULT=hang:issue-claimed:3")
    factory.start("AR-1", "AR-2")
    old, before = factory.main_pid, factory.tree()
    factory.put("AR-3", play(ESCAPES))
    factory.wait_replaced(old)
    wait_until(
        lambda: "Watchdog timeout" in factory.journal("--unit", SERVICE), "the watchdog is silent"
    )
    factory.wait_up("AR-3")
    assert before <= factory.tree()
    factory.finish("AR-1", "AR-2", "AR-3")


def test_five_crashes_in_a_row_end_the_service_and_all_its_agents(factory: Factory) -> None:
    factory.change("[Timer]\nOnCalendar=\nOnCalendar=yearly", "factoryd-reap.timer")
    factory.start("AR-1", "AR-2")
    often = "[Unit]\nStartLimitIntervalSec=300\n[Service]\nRestartSec=1"
    factory.change(f"{often}\nEnvironment=FACTORYD_FAULT=die-before:daemon-started")
    factory.signal("KILL")
    wait_until(lambda: factory.show("ActiveState") == "failed", "systemd does not give up", 180)
    wait_until(lambda: not factory.tree(), f"{REAP} leaves agents")
    wait_until(lambda: factory.show("ActiveState", REAP) == "inactive", f"{REAP} goes on")
    assert factory.show("Result", REAP) == "success"
    factory.change("")
    factory.systemctl("reset-failed", SERVICE)
    factory.systemctl("start", SERVICE)
    factory.wait_runs("AR-1", 2)


def test_a_daemon_that_hangs_is_stopped_with_all_its_agents(factory: Factory) -> None:
    factory.change("[Service]\nTimeoutStopSec=8\nEnvironment=FACTORYD_FAULT=hang:issue-claimed:3")
    factory.start("AR-1", "AR-2")
    factory.put("AR-3", play(ESCAPES))
    wait_until(lambda: "issue-claimed" in factory.facts("AR-3"), "the daemon does not hang")
    factory.systemctl("stop", SERVICE)
    assert not factory.tree()
    wait_until(
        lambda: "timed out. Killing" in factory.journal("--unit", SERVICE), "nobody is killed"
    )


@pytest.mark.parametrize("fault", ["hang", "die-after"])
def test_a_daemon_that_fails_while_it_stops_leaves_no_agent(fault: str, factory: Factory) -> None:
    """The first agent has ended and the second has not yet when it happens."""
    factory.change(f"[Service]\nTimeoutStopSec=20\nEnvironment=FACTORYD_FAULT={fault}:run-emptied")
    factory.configure(grace='"2s"')
    factory.start("AR-1")
    factory.start("AR-2", agent=play("ignore:TERM", ESCAPES))
    factory.systemctl("stop", SERVICE)
    assert not factory.tree()
    assert factory.show("Result") in {"timeout", "signal"}
