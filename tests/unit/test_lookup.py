"""Which process a recorded run is: names are anchored, and prove nothing alone."""

import pytest

from factoryd.core.lookup import (
    Ambiguous,
    Found,
    Known,
    Mismatch,
    Missing,
    Scan,
    ScanFailed,
    Seen,
    Unresolved,
    find_again,
    find_by_name,
    sort_out,
)
from factoryd.core.model import ProcessIdentity, RunId, TreePlace

AGENT, RUN = "ar-1-w", RunId("ar-1-w-00ff")
SHIM = ("/bin/sh", "/x/agent-shim")
NAMED = (*SHIM, "--agent-name", AGENT, "--run", RUN, "--status", "/s", "--", "work")


def identity(pid, start_ticks=7, boot_id="boot"):
    return ProcessIdentity(pid=pid, start_ticks=start_ticks, boot_id=boot_id)


def scan(*processes):
    """Return a scan of (pid, parent, command line)."""
    seen = (Seen(identity=identity(pid), ppid=up, argv=tuple(argv)) for pid, up, argv in processes)
    return Scan(boot_id="boot", processes=tuple(seen))


def find(*processes):
    return find_by_name(scan((1, 0, ["init"]), *processes), AGENT, RUN)


def place(run=RUN, agent=AGENT, cgroup=None):
    return TreePlace(run=RunId(run), issue="AR-1", agent=agent, directory="/d", cgroup=cgroup)


# ------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    "argv",
    [
        NAMED,
        (*SHIM, f"--agent-name={AGENT}", "--run", RUN, "--", "work"),
        (*SHIM, f"--agent-name={AGENT}", f"--run={RUN}"),
        ("x", "--run", RUN, "--agent-name", AGENT),
    ],
)
def test_a_process_with_name_and_run_is_found(argv):
    assert find((9, 1, argv)) == Found(identity=identity(9))


OTHERS = {
    "a longer name": ("x", "--agent-name", f"{AGENT}-2", "--run", RUN),
    "a longer name after =": ("x", f"--agent-name={AGENT}x", "--run", RUN),
    "a shorter name": ("x", "--agent-name", AGENT[:-1], "--run", RUN),
    "another option": ("x", "--name", AGENT, "--run", RUN),
    "an option that ends alike": ("x", f"--old--agent-name={AGENT}", f"--my-agent-name={AGENT}"),
    "one word with a space": ("grep", f"--agent-name {AGENT}"),
    "an argument": ("vi", AGENT),
    "after the options": ("ssh", "host", "--", "--agent-name", AGENT, "--run", RUN),
    "nothing after it": ("x", "--agent-name"),
    "nothing": (),
}


@pytest.mark.parametrize("argv", OTHERS.values(), ids=OTHERS)
def test_a_name_counts_only_as_a_whole_word_in_its_own_option(argv):
    assert find((9, 1, argv)) == Missing()
    assert find((9, 1, argv), (10, 1, NAMED)) == Found(identity=identity(10))


def test_of_many_the_one_all_others_descend_from_is_found():
    assert find((9, 1, NAMED), (10, 9, ["work"]), (11, 10, NAMED), (12, 9, NAMED)) == Found(
        identity=identity(9)
    )


def test_several_that_descend_from_no_common_one_are_ambiguous():
    assert find((9, 1, NAMED), (10, 1, NAMED), (11, 9, NAMED)) == Ambiguous(pids=(9, 10, 11))


def test_parents_in_a_ring_are_ambiguous_and_looked_at_once():
    assert find((9, 10, NAMED), (10, 9, NAMED)) == Ambiguous(pids=(9, 10))
    assert find((9, 9, NAMED)) == Found(identity=identity(9))
    assert find((9, 10, NAMED), (10, 11, []), (11, 10, [])) == Found(identity=identity(9))


@pytest.mark.parametrize("run", [(), ("--run", f"{RUN}0"), ("--run", "ar-1-w-0"), (RUN,)])
def test_one_of_the_name_without_this_run_is_a_mismatch(run):
    lookup = find((9, 1, ("x", "--agent-name", AGENT, *run)))
    assert isinstance(lookup, Mismatch)
    assert lookup.pid == 9


def test_a_run_that_only_a_descendant_names_is_a_mismatch():
    lookup = find((9, 1, ("x", "--agent-name", AGENT)), (10, 9, NAMED))
    assert isinstance(lookup, Mismatch)


def test_a_scan_that_could_not_run_is_neither_missing_nor_gone():
    failed = ScanFailed(reason="Too many open files")
    assert find_by_name(failed, AGENT, RUN) == Unresolved(reason="Too many open files")
    assert find_again(failed, identity(9)) == Unresolved(reason="Too many open files")


# ---------------------------------------------------------------------------------- by identity


def test_a_recorded_process_is_found_again_only_as_itself():
    there = scan((9, 1, ["whatever"]))
    assert find_again(there, identity(9)) == Found(identity=identity(9))
    assert find_again(there, identity(10)) == Missing()
    recycled = find_again(there, identity(9, start_ticks=6))
    assert recycled == Mismatch(pid=9, reason="pid identity mismatch")
    rebooted = find_again(there, identity(9, boot_id="before"))
    assert rebooted == Mismatch(pid=9, reason="lost in reboot")


# --------------------------------------------------------------------------------- sorting out

UNSURE = {
    "missing": (scan(), "missing", False),
    "ambiguous": (scan((9, 1, NAMED), (10, 1, NAMED)), "ambiguous", True),
    "unresolved": (ScanFailed(reason="no /proc"), "unresolved: no /proc", True),
    "mismatch": (scan((9, 1, ("x", "--agent-name", AGENT))), "mismatch", True),
}


@pytest.mark.parametrize(("seen", "reason", "unproven"), UNSURE.values(), ids=UNSURE)
def test_who_is_not_found_is_left_alone_by_name_and_reason_but_its_leaf_is_owed(
    seen, reason, unproven
):
    bare = Known(place=place(), identity=None)
    leafy = Known(place=place(cgroup="/cg/agents/AR-1/r"), identity=None)
    for known, owed in ((bare, ()), (leafy, (leafy,))):
        done = sort_out([known], seen)
        assert done.owed == owed
        assert {one.agent for one in done.alone} == {AGENT}
        assert all(one.reason.startswith(reason) for one in done.alone)
        assert any(one.unproven for one in done.alone) == (unproven and not owed)


def test_who_is_found_by_name_is_owed_as_who_it_is():
    known = Known(place=place(), identity=None, asked=True)
    done = sort_out([known], scan((9, 1, NAMED)))
    assert done.owed == (Known(place=place(), identity=identity(9), asked=True),)
    assert done.alone == ()


def test_a_recorded_run_is_owed_whatever_became_of_its_first_process():
    known = Known(place=place(), identity=identity(9))
    for seen in (scan((9, 1, NAMED)), scan(), ScanFailed(reason="x")):
        assert sort_out([known], seen).owed == (known,)
        assert sort_out([known], seen).alone == ()


def test_of_a_recycled_pid_only_the_rest_of_the_tree_is_owed():
    known = Known(place=place(), identity=identity(9, start_ticks=6))
    done = sort_out([known], scan((9, 1, NAMED)))
    assert done.owed == (known,)
    assert [(one.pid, one.reason) for one in done.alone] == [(9, "pid identity mismatch")]


def test_after_a_reboot_nothing_is_anybodys():
    known = Known(place=place(cgroup="/cg"), identity=identity(9, boot_id="before"))
    done = sort_out([known], scan((9, 1, NAMED)))
    assert done.owed == ()
    assert [(one.pid, one.reason) for one in done.alone] == [(9, "lost in reboot")]
