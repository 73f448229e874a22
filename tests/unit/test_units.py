"""Durations and sizes as people write them."""

import pytest
from hypothesis import given, strategies as st

from factoryd.core.units import format_duration, format_size, parse_duration, parse_size


@given(st.integers(0, 10**12 - 1), st.sampled_from(["ms", "s", "m", "h"]))
def test_a_duration_survives_being_written_and_read(number, unit):
    seconds = parse_duration(f"{number}{unit}")
    if seconds < 10**9:
        assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**15 - 1))
def test_a_size_survives_being_written_and_read(size):
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("5m", 300), ("2h", 7200), ("0s", 0)]
)
def test_durations_are_seconds(text, seconds):
    assert parse_duration(text) == seconds
