"""The dry run: what would be dispatched and why the rest would not, without touching anything."""

from collections.abc import Iterable

from factoryd.core.config import Config
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Issue, IssueState
from factoryd.core.policy import (
    Decision,
    Dispatch,
    Escalate,
    Reopen,
    Skip,
    decide,
    hold_reason,
    in_order,
)
from factoryd.core.records import same_issue
from factoryd.core.registry import Registry
from factoryd.ports import IssueSource


async def preview(
    sources: Iterable[IssueSource], registry: Registry, config: Config, now: float
) -> list[str]:
    """Return one line per problem and per ready issue, the issues in the order of dispatch."""
    lines: list[str] = []
    issues: dict[str, Issue] = {}
    for source in sources:
        try:
            listing = await source.list_ready()
        except SourceFailed as error:
            lines.append(f"source {source.name}: {error}")
            continue
        lines += [f"{problem.where}: {problem.reason}" for problem in listing.problems]
        for issue in listing.issues:
            issues.setdefault(same_issue(issue.key), issue)
    running = sum(one.state is IssueState.RUNNING for one in registry.issues.values())
    free = config.factory.slots - running
    for issue in in_order(issues.values()):
        decision = decide(issue, registry.issue(issue.key), config, now)
        held = hold_reason(paused=registry.paused is not None, free_slots=free)
        lines.append(f"{issue.key}: {_describe(decision, held)}")
        free -= isinstance(decision, Dispatch)
    return lines


def _describe(decision: Decision, held: str | None) -> str:
    match decision:
        case Dispatch(repo=repo, recipe=recipe) if held is None:
            return f"would be dispatched: repo {repo}, recipe {recipe}"
        case Dispatch():
            return f"would wait: {held}"
        case Reopen():
            return "would be dispatched as new work: it left ready and came back"
        case Escalate(reason=reason):
            return f"would be escalated: {reason}"
        case Skip(reason=reason):
            return f"would be left alone: {reason}"
