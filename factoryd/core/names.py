"""Who has an agent's name: a run that is live, or one whose tree is not proven empty."""

from collections.abc import Mapping

from factoryd.core.errors import NameTaken
from factoryd.core.events import NameCollided
from factoryd.core.model import RunId
from factoryd.core.records import HandoffRecord, IssueRecord, same_issue


def check_name_free(
    agent: str,
    issues: Mapping[str, IssueRecord],
    handoffs: Mapping[str, HandoffRecord | None],
) -> None:
    """Raise `NameTaken`, with the run that has the name, when an agent may not start now.

    An agent is named KEY-name, so a run that is live under its name belongs to an issue whose key
    the name begins with.
    """
    for owed in handoffs.values():
        if owed is not None and owed.place.agent == agent:
            raise NameTaken(
                f"{agent} cannot start: the tree of its earlier run {owed.place.run} is not "
                f"proven empty yet: {owed.reason}",
                agent=agent,
                holder=owed.place.run,
            )
    parts = agent.split("-")
    for end in range(1, len(parts)):
        other = issues.get(same_issue("-".join(parts[:end])))
        run = None if other is None else other.runs.get(agent)
        if other is not None and run is not None and run.live:
            raise NameTaken(
                f"{agent} cannot start: {other.issue.key} has an agent of that name running: "
                f"run {run.run}",
                agent=agent,
                holder=run.run,
            )


def tell_collision(
    issue: IssueRecord, agent: str, holder: RunId, reason: str
) -> tuple[NameCollided, ...]:
    """Return the fact that a name is taken; none when that was told of this holder before."""
    if issue.collisions.get(agent) == holder:
        return ()
    return (NameCollided(issue=issue.issue.key, agent=agent, holder=holder, reason=reason),)
