"""Values as plain text for people: lengths of time, sizes, aligned tables, nothing that steers a terminal."""

from collections.abc import Sequence

UNKNOWN = "-"

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 9}
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def printable(text: str) -> str:
    r"""Return the text with control characters spelled out (``\x1b``), tabs kept.

    So nothing that an agent or an issue says can steer the reader's terminal.
    """
    return text.translate(_ESCAPED)


def align(table: Sequence[Sequence[str]], right: frozenset[str] = frozenset()) -> list[str]:
    """Return a table as lines, its first row the names of its columns, some lined up right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    sides = [">" if name in right else "<" for name in table[0]]
    return [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def duration(seconds: float | None) -> str:
    """Return a length of time in at most two units (``2h05m``)."""
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    for unit_s, unit, part_s, part in _UNITS:
        if whole >= unit_s:
            return f"{whole // unit_s}{unit}{whole % unit_s // part_s:02}{part}"
    return f"{whole}s"


def size(count: int | None) -> str:
    """Return a number of bytes in the unit that suits it (``1.5M``; a K is 1024)."""
    if count is None:
        return UNKNOWN
    amount, unit = float(count), "B"
    for larger in "KMGT":
        if amount < 1000:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f}{unit}" if unit != "B" and amount < 10 else f"{amount:.0f}{unit}"
