"""Who may do what."""

import pytest

from factoryd.core.access import Caller, Right, right_of
from factoryd.core.config import AccessConfig

ACCESS = AccessConfig(operators=("@ops", "ann"), readers=("@staff", "rob"))
OWN = 990


def caller(uid=1000, user="zoe", groups=(), in_agent=False):
    return Caller(pid=7, uid=uid, user=user, groups=frozenset(groups), in_agent=in_agent)


@pytest.mark.parametrize(
    ("who", "right"),
    [
        (caller(uid=0, user="root"), Right.EVERYTHING),
        (caller(uid=OWN, user="factoryd"), Right.EVERYTHING),
        (caller(groups=["ops"]), Right.EVERYTHING),
        (caller(user="ann"), Right.EVERYTHING),
        (caller(groups=["ops", "staff"]), Right.EVERYTHING),
        (caller(groups=["staff"]), Right.READ),
        (caller(user="rob"), Right.READ),
        (caller(), Right.NOTHING),
        (caller(user=None), Right.NOTHING),
        (caller(user="ops"), Right.NOTHING),
        (caller(groups=["ann"]), Right.NOTHING),
        (caller(user="Ann"), Right.NOTHING),
    ],
)
def test_rights_come_from_the_account(who, right):
    assert right_of(who, ACCESS, OWN) is right


@pytest.mark.parametrize(
    "who",
    [
        caller(uid=0, user="root", in_agent=True),
        caller(uid=OWN, in_agent=True),
        caller(groups=["ops"], in_agent=True),
        caller(in_agent=True),
    ],
)
def test_an_agent_may_read_and_nothing_more_whatever_its_account(who):
    assert right_of(who, ACCESS, OWN) is Right.READ


def test_a_caller_that_cannot_be_told_from_an_agent_never_gets_more_than_one():
    assert right_of(caller(uid=0, in_agent=None), ACCESS, OWN) is Right.READ
    assert right_of(caller(groups=["ops"], in_agent=None), ACCESS, OWN) is Right.READ
    assert right_of(caller(groups=["staff"], in_agent=None), ACCESS, OWN) is Right.READ
    assert right_of(caller(in_agent=None), ACCESS, OWN) is Right.NOTHING
