"""What people read of a run in which the kernel killed for lack of memory."""

import pytest

from factoryd.core.evidence import tell_end
from factoryd.core.model import Exit, OutOfMemory, Victim
from factoryd.core.policy import Ending

PYTHON = Victim(name="python3", pid=123)
ABOVE = "the machine's, or a limit not its own"
OWN = OutOfMemory(kills=1, limit_bytes=64 << 20, victims=(PYTHON,))


def tell(status, lack=OWN, **ending):
    reason = None if status is not None else "nobody saw it"
    return tell_end("a", Ending(exit=Exit(status=status, reason=reason), **ending), lack)


def test_an_agent_killed_for_lack_of_memory_is_told_so_with_the_limit_and_the_culprit():
    assert tell(137) == "a was killed for lack of memory (limit 64M): python3, pid 123"


@pytest.mark.parametrize(
    ("status", "ending", "end"),
    [
        (1, {}, "a exited with 1"),
        (None, {}, "a was lost: nobody saw it"),
        (None, {"stalled": True}, "a stalled"),
    ],
)
def test_an_agent_that_failed_after_a_child_was_killed_is_told_so_too(status, ending, end):
    because = "after part of it was killed for lack of memory (limit 64M): python3, pid 123"
    assert tell(status, **ending) == f"{end} {because}"


@pytest.mark.parametrize(
    ("status", "ending", "told"),
    [
        (75, {}, "a asked to be run later (exit 75)"),
        (137, {"stopping": True}, "a was stopped"),
        (0, {}, "a exited with 0"),
    ],
)
def test_a_run_that_did_not_fail_of_it_is_told_as_ever(status, ending, told):
    assert tell(status, **ending) == told


def test_without_a_kill_a_death_by_sigkill_is_an_exit_like_any_other():
    assert tell(137, None) == "a exited with 137"


@pytest.mark.parametrize(
    ("lack", "told"),
    [
        (
            OutOfMemory(kills=1, victims=(Victim(name="node", pid=7, machine=True),)),
            "as the machine ran out of memory: node, pid 7",
        ),
        (
            OutOfMemory(kills=1, victims=(PYTHON,)),
            "for lack of memory (a limit not its own): python3, pid 123",
        ),
        (
            OutOfMemory(kills=2, limit_bytes=1 << 30, untold="cannot be read"),
            "for lack of memory (limit 1G): 2 processes, unknown which: cannot be read",
        ),
        (
            OutOfMemory(kills=1, untold="it is silent"),
            f"for lack of memory ({ABOVE}): one process, unknown which: it is silent",
        ),
        (
            OutOfMemory(kills=5, limit_bytes=1 << 20, victims=(PYTHON, PYTHON)),
            "for lack of memory (limit 1M): python3, pid 123; python3, pid 123; and 3 more",
        ),
        (
            OutOfMemory(kills=4, limit_bytes=1 << 20, victims=(PYTHON,) * 4),
            "for lack of memory (limit 1M): " + "python3, pid 123; " * 3 + "and 1 more",
        ),
    ],
    ids=["the machine", "above", "unreadable", "silent", "some", "many"],
)
def test_what_ran_out_and_who_was_killed_is_told_as_far_as_it_is_known(lack, told):
    assert tell(137, lack) == f"a was killed {told}"
