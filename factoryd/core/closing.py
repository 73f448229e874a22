"""Which claimed issues others have ended in their source: shown as ended, or gone for good."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from factoryd.core.model import Closed, IssueState

GONE_FOR_S = 1.0
"""How long an issue must be nowhere to count as gone: some editors move a file away to save it."""


def tell_closed(
    found: Iterable[Closed], missing: Mapping[str, float], now: float
) -> tuple[tuple[Closed, ...], dict[str, float]]:
    """Return which issues are over, and which others are missing, with since when.

    `found` is what the newest look showed, `missing` what this returned for the look before. One
    that is gone for good counts as cancelled.
    """
    over: list[Closed] = []
    still_missing: dict[str, float] = {}
    for closed in found:
        since = missing.get(closed.key, now)
        if closed.outcome is not None:
            over.append(closed)
        elif now - since >= GONE_FOR_S:
            over.append(replace(closed, outcome=IssueState.CANCELLED))
        else:
            still_missing[closed.key] = since
    return tuple(over), still_missing
