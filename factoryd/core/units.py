"""Text forms of durations and sizes, as people write them in the configuration."""

import re

_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_BYTES = {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10, "": 1}
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")


def parse_duration(text: str) -> float:
    """Return the seconds that `250ms`, `30s`, `5m` or `2h` stands for.

    Raise `ValueError` for anything else: a fraction, two units, a missing unit, a sign.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _MILLISECONDS[match[2]] / 1000


def format_duration(seconds: float) -> str:
    """Return the shortest text that `parse_duration` reads as `seconds`, to the millisecond."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    unit = next(unit for unit, size in _MILLISECONDS.items() if milliseconds % size == 0)
    return f"{milliseconds // _MILLISECONDS[unit]}{unit}"


def parse_size(text: str) -> int:
    """Return the bytes that `2G`, `512M`, `64K` or `1000` stands for (a K is 1024 bytes).

    Raise `ValueError` for anything else.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _BYTES[match[2]]


def format_size(size: int) -> str:
    """Return the shortest text that `parse_size` reads as `size` bytes."""
    if size == 0:
        return "0"
    unit = next(unit for unit, factor in _BYTES.items() if size % factor == 0)
    return f"{size // _BYTES[unit]}{unit}"
