"""How many lines may pass in a time."""

import pytest
from hypothesis import given, strategies as st

from factoryd.core.throttle import Throttle


def passes(throttle: Throttle, now: float, lines: int) -> int:
    return [throttle.admits(now) for _ in range(lines)].count(True)


def test_a_burst_passes_and_what_is_above_it_is_counted():
    throttle = Throttle(10, 30, now=0)
    assert passes(throttle, 0, 25) == 10
    assert throttle.take_withheld(1) == 0
    assert throttle.give_up() == 15
    assert throttle.give_up() == 0


def test_what_is_used_up_stays_shut_until_all_of_it_is_back():
    throttle = Throttle(10, 30, now=0)
    passes(throttle, 0, 11)
    assert passes(throttle, 29.9, 5) == 0
    assert passes(throttle, 30, 25) == 10
    assert throttle.take_withheld(60) == 1 + 5 + 15


def test_a_steady_pace_below_the_rate_is_never_withheld():
    throttle = Throttle(10, 30, now=0)
    assert all(throttle.admits(3.01 * number) for number in range(1000))
    assert throttle.take_withheld(3010) == 0


def test_rest_makes_it_as_good_as_new_and_no_better():
    throttle = Throttle(10, 30, now=0)
    assert throttle.is_untouched(0)
    passes(throttle, 0, 4)
    assert not throttle.is_untouched(11)
    assert throttle.is_untouched(12.1)
    passes(throttle, 13, 30)
    assert not throttle.is_untouched(1000)
    assert throttle.take_withheld(1000) == 20
    assert throttle.is_untouched(1000)
    assert passes(throttle, 1000, 30) == 10


@pytest.mark.parametrize("lines", [1, 7])
@given(pauses=st.lists(st.floats(0, 40), max_size=200))
def test_in_any_stretch_no_more_pass_than_the_rate_allows(lines, pauses):
    throttle, now, passed = Throttle(lines, 30, now=0), 0.0, []
    for pause in pauses:
        now += pause
        if throttle.admits(now):
            passed.append(now)
    for number, start in enumerate(passed):
        for more, end in enumerate(passed[number:], 1):
            assert more <= lines + (end - start) * lines / 30 + 1e-6
    assert len(passed) + throttle.give_up() == len(pauses)
