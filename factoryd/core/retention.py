"""Which finished issues may be forgotten."""

from factoryd.core.config import HistoryConfig
from factoryd.core.lifecycle import TERMINAL
from factoryd.core.registry import Registry


def choose_forgettable(registry: Registry, history: HistoryConfig, now: float) -> list[str]:
    """Return the keys of finished issues that are too old or too many, oldest first.

    Never one whose outcome is not written back, whose tree is still owed, or that its source still
    shows as ready: it would be taken for new work.
    """
    owed = {handoff.place.issue for handoff in registry.handoffs.values()}
    finished = sorted(
        (
            record
            for record in registry.issues.values()
            if record.state in TERMINAL
            and record.written
            and record.left_ready
            and record.issue.key not in owed
        ),
        key=lambda record: record.since,
    )
    surplus = max(0, len(finished) - history.max_issues)
    return [
        record.issue.key
        for place, record in enumerate(finished)
        if place < surplus or now - record.since > history.keep
    ]
