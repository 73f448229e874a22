"""What doctor makes of what it sees."""

import re

import pytest

from factoryd.core.checkup import (
    CgroupLook,
    Check,
    Checkup,
    Verdict,
    check_containment,
    check_controllers,
    check_watchdog,
    write_lines,
)
from tests.unit.configs import SMALL, parse

HERE = CgroupLook(layout="unified", root="/sys/fs/cgroup/x/agents")
NOWHERE = CgroupLook(problem="no cgroup2 file system is mounted")


@pytest.mark.parametrize(
    ("look", "wanted", "state", "said"),
    [
        (HERE, "auto", "ok", "cgroup: .* below /sys/fs/cgroup/x/agents .unified."),
        (HERE, "cgroup", "ok", "cgroup"),
        (HERE, "subreaper", "ok", "subreaper, as the configuration says"),
        (NOWHERE, "auto", "warning", "subreaper, as no cgroups can be made here: no cgroup2"),
        (NOWHERE, "cgroup", "failed", "no cgroups can be made here, and the configuration wants"),
        (NOWHERE, "subreaper", "ok", "subreaper"),
    ],
)
def test_the_containment_that_would_be_chosen_is_told_with_the_reason(look, wanted, state, said):
    check = check_containment(look, wanted)
    assert check.state == state
    assert re.match(said, check.detail)
    assert (check.advice is None) is (state == "ok"), "who has a problem is told what to do"


def test_controllers_that_are_missing_matter_only_to_limits_that_are_configured():
    limited = parse(
        SMALL.replace('command = ["review"]', 'command = ["review"]\nmemory_max = "1G"')
    )
    assert check_controllers({"memory", "pids", "cpu", "io"}, limited.agents).detail.startswith(
        "memory, pids and cpu are delegated"
    )
    unlimited = check_controllers({"cpu"}, parse(SMALL).agents)
    assert unlimited.state is Verdict.OK
    assert "not delegated: memory, pids;" in unlimited.detail
    assert "memory_max limits the private memory of each process" in unlimited.detail
    assert "pids_max limits all that the agent's user runs" in unlimited.detail
    assert "cpu_weight" not in unlimited.detail
    held = check_controllers({"pids", "cpu"}, limited.agents)
    assert held.state is Verdict.WARNING
    assert "configured: memory_max" in held.detail
    assert "Delegate=yes" in str(held.advice)


def test_a_limit_on_processes_that_binds_nobody_is_told():
    limited = parse(SMALL.replace('command = ["review"]', 'command = ["review"]\npids_max = 64'))
    user = check_controllers({"memory", "cpu"}, limited.agents)
    assert "all that the agent's user runs (RLIMIT_NPROC), and root not at all" in user.detail
    root = check_controllers({"memory", "cpu"}, limited.agents, as_root=True)
    assert "pids_max limits nothing, as agents run as root here" in root.detail
    assert (user.state, root.state) == (Verdict.WARNING, Verdict.WARNING)
    held = check_controllers({"memory", "pids", "cpu"}, limited.agents, as_root=True)
    assert "pids_max" not in held.detail, "a controller binds root as well"


def test_a_watchdog_that_bites_between_two_heartbeats_is_a_failure():
    assert "none has started" in check_watchdog("", "", 15.0).detail
    assert "no watchdog" in check_watchdog("/run/n", "", 15.0).detail
    assert check_watchdog("/run/n", "30000000", 15.0).state is Verdict.OK
    bites = check_watchdog("/run/n", "29000000", 15.0)
    assert bites.state is Verdict.FAILED
    assert "after 29 s" in bites.detail
    assert "30" in str(bites.advice)


def test_a_checkup_reads_as_one_line_a_check_with_what_to_do_below():
    checkup = Checkup(
        checks=(
            Check(name="sqlite", state=Verdict.OK, detail="3.40.1"),
            Check(name="git", state=Verdict.FAILED, detail="not found", advice="install git"),
        )
    )
    assert checkup.failed
    assert write_lines(checkup) == [
        "ok       sqlite: 3.40.1",
        "failed   git: not found",
        "         -> install git",
    ]
    assert not Checkup(checks=checkup.checks[:1]).failed
