"""What freezing and thawing make of the record of an issue."""

from msgspec.structs import replace

from factoryd.core.errors import IllegalFact
from factoryd.core.events import IssueFrozen, IssueThawed
from factoryd.core.records import IssueRecord


def freeze_or_thaw(record: IssueRecord, fact: IssueFrozen | IssueThawed) -> IssueRecord:
    """Return the record after the fact; raise `IllegalFact` when it is so already."""
    if isinstance(fact, IssueThawed):
        if not record.frozen:
            raise IllegalFact(f"{fact.issue}: it is not frozen")
        return thawed(record)
    if record.frozen:
        raise IllegalFact(f"{fact.issue}: it is frozen already: {record.frozen_reason}")
    return replace(record, frozen=True, frozen_reason=fact.reason)


def thawed(record: IssueRecord) -> IssueRecord:
    """Return the record of an issue that is not frozen, whatever it was."""
    return replace(record, frozen=False, frozen_reason=None)
