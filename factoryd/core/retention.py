"""Which finished issues may be forgotten."""

from factoryd.core.config import HistoryConfig
from factoryd.core.lifecycle import IN_FLIGHT, TERMINAL
from factoryd.core.records import same_issue
from factoryd.core.registry import Registry


def choose_forgettable(registry: Registry, history: HistoryConfig, now: float) -> list[str]:
    """Return the keys of finished issues that are too old or too many, oldest first.

    An issue that nobody works on and that its source no longer shows counts as finished. Never one whose outcome is not written back, whose tree is still owed, or that its source still
    shows as ready: it would be taken for new work.
    """
    owed = {same_issue(handoff.place.issue) for handoff in registry.handoffs.values()}
    finished = sorted(
        (
            record
            for record in registry.issues.values()
            if record.state not in IN_FLIGHT
            and (record.written or record.state not in TERMINAL)
            and record.left_ready
            and same_issue(record.issue.key) not in owed
        ),
        key=lambda record: record.since,
    )
    surplus = max(0, len(finished) - history.max_issues)
    return [
        record.issue.key
        for place, record in enumerate(finished)
        if place < surplus or now - record.since > history.keep
    ]
