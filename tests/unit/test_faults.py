"""Faults on order: understood in full, or refused with what there is."""

import pytest

from factoryd.adapters.faults import VARIABLE, Act, Fault, read_fault
from factoryd.core.errors import BadUsage
from factoryd.core.events import KINDS, kind_of


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("kind", [kind_of(kind) for kind in KINDS])
def test_every_act_is_to_be_had_at_every_kind_of_fact(act, kind):
    assert read_fault({VARIABLE: f"{act}:{kind}"}) == Fault(act=act, kind=kind, number=1)
    assert read_fault({VARIABLE: f"{act}:{kind}:12"}) == Fault(act=act, kind=kind, number=12)


def test_without_an_order_there_is_no_fault():
    assert read_fault({"PATH": "/bin"}) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "die-before",
        "die-before:",
        "die-before:never-heard-of",
        "die:run-started",
        "die-before:run-started:0",
        "die-before:run-started:-1",
        "die-before:run-started:x",
        "die-before:run-started:1:2",
        "DIE-BEFORE:run-started",
        "hang",
    ],
)
def test_nonsense_is_refused_with_what_there_is(text):
    with pytest.raises(BadUsage) as refused:
        read_fault({VARIABLE: text})
    sentence = str(refused.value)
    assert sentence.startswith(f"{VARIABLE}={text}: ")
    for word in (*Act, *map(kind_of, KINDS)):
        assert word in sentence
