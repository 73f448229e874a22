"""The scope gate and the choice of route: whether an issue may be touched, and where it goes."""

import re

from factoryd.core.config import Config, RouteConfig, SafetyConfig
from factoryd.core.keyword import is_in
from factoryd.core.model import Data, Issue


class Routed(Data, frozen=True, kw_only=True):
    """Where an issue goes: names of a configured repository and recipe, and what decided it."""

    repo: str
    recipe: str
    why: str


class Unrouted(Data, frozen=True, kw_only=True):
    """No route leads anywhere; `reason` is for a person to act on."""

    reason: str


def refuse_scope(issue: Issue, safety: SafetyConfig) -> str | None:
    """Return why the scope gate refuses an issue, None when it may be touched.

    Every line that is set must pass: the label in any case; the title equal to the prefix or
    starting with the prefix and one space; the team equal, or no team at all.
    """
    label = safety.require_label.casefold()
    if label and label not in {own.casefold() for own in issue.labels}:
        return f"out of scope: it lacks the label {safety.require_label!r}"
    prefix = safety.require_title_prefix
    if (
        prefix
        and issue.title != prefix
        and not re.match(re.escape(prefix) + r" (?! )", issue.title)
    ):
        return f"out of scope: its title does not start with {prefix!r} and one space"
    if safety.require_team and issue.team not in {None, safety.require_team}:
        return f"out of scope: its team is {issue.team!r}, not {safety.require_team!r}"
    return None


def _matches(issue: Issue, route: RouteConfig) -> str | None:
    if route.label is not None:
        wanted = route.label.casefold()
        return "label" if wanted in {own.casefold() for own in issue.labels} else None
    if route.project is not None:
        return "project" if issue.project == route.project else None
    if route.team is not None:
        return "team" if issue.team == route.team else None
    if route.keyword is not None:
        found = is_in(route.keyword, f"{issue.title}\n{issue.body}")
        return "keyword" if found else None
    return "default" if route.default else None


_ORDER = ("label", "project", "team", "keyword", "default")


def choose_route(issue: Issue, config: Config) -> Routed | Unrouted:
    """Return where an issue goes; what the issue itself names comes first, nothing is guessed.

    Routes are tried by kind (label, project, team, keyword, default), then in file order.
    """
    for named, known, what in (
        (issue.repo, config.repos, "repo"),
        (issue.recipe, config.recipes, "recipe"),
    ):
        if named is not None and named not in known:
            return Unrouted(reason=f"no route: it names the {what} {named!r}, which is unknown")
    if issue.repo is not None and issue.recipe is not None:
        return Routed(repo=issue.repo, recipe=issue.recipe, why="named by the issue")
    found = [(kind, route) for route in config.routes if (kind := _matches(issue, route))]
    if not found:
        return Unrouted(reason="no route: no [[routes]] entry matches it and there is no default")
    kind, route = min(found, key=lambda pair: _ORDER.index(pair[0]))
    return Routed(
        repo=issue.repo or route.repo,
        recipe=issue.recipe or route.recipe,
        why=f"route by {kind}",
    )
