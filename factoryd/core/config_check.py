"""Rules of the configuration that concern more than one value, or more than a value's shape."""

import re
from collections.abc import Collection
from signal import Signals

from factoryd.core.config import AgentConfig, Config, RouteConfig
from factoryd.core.errors import ConfigInvalid
from factoryd.core.keyword import BadKeyword, measure_reach
from factoryd.core.template import find_mistake, find_placeholders

_CRITERIA = ("label", "project", "team", "keyword", "default")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Mistakes:
    """Collects what is wrong with one configuration file: the first mistake of each key."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._reasons: dict[str, str] = {}
        self._concerned: set[str] = set()

    def add(self, key: str, reason: str) -> None:
        """Note a mistake at `key`; a key that has one already keeps the first."""
        self._reasons.setdefault(key, reason)
        self._concerned.update(key[: match.start()] for match in re.finditer(r"[.\[]|\Z", key))

    def concern(self, key: str) -> bool:
        """Say whether `key`, or anything below it, has a mistake."""
        return key in self._concerned

    def raise_any(self) -> None:
        """Raise `ConfigInvalid` with one `FILE: key: reason` for each mistake, if there is one."""
        if self._reasons:
            raise ConfigInvalid(
                tuple(f"{self._file}: {key}: {reason}" for key, reason in self._reasons.items())
            )


def quote(name: str, *, always: bool = False) -> str:
    """Return a name as it stands in TOML, on one line and of bounded length."""
    short = name if len(name) <= 100 else f"{name[:100]}…"
    if _BARE.fullmatch(name) and not always:
        return short
    plain = "".join(each if each.isprintable() else "\ufffd" for each in short)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check(config: Config, mistakes: Mistakes) -> None:
    """Add every mistake of the relations between keys; looks at no file and no directory."""
    _check_signal(config.stop.signal, mistakes)
    _check_sources(config, mistakes)
    for name, repo in config.repos.items():
        if not repo.path and repo.workspace != "directory":
            mistakes.add(f"repos.{quote(name)}.path", "is missing: say where the repository is")
    _check_routes(config, mistakes)
    for name in config.recipes:
        _check_recipe(config, name, mistakes)
    for name, agent in config.agents.items():
        _check_agent(name, agent, mistakes)


def _check_signal(name: str, mistakes: Mistakes) -> None:
    if name in ("SIGKILL", "SIGSTOP"):
        mistakes.add("stop.signal", f"{name} cannot be caught: choose one that can, as SIGTERM")
    elif name not in Signals.__members__:
        mistakes.add("stop.signal", f"{quote(name)} is no signal's name: write one as SIGTERM")


def _check_sources(config: Config, mistakes: Mistakes) -> None:
    if not config.sources:
        mistakes.add("sources", "there is none: add a [[sources]] section")
    paths: dict[str, int] = {}
    names: dict[str, int] = {}
    for index, source in enumerate(config.sources):
        if paths.setdefault(source.path, index) != index:
            add_shared_folder(index, paths[source.path], mistakes)
        elif names.setdefault(source.name, index) != index:
            mistakes.add(
                f"sources[{index}].name",
                f"sources[{names[source.name]}] is called {quote(source.name)} already: "
                "give another name",
            )


def add_shared_folder(index: int, first: int, mistakes: Mistakes) -> None:
    """Note that source `index` reads the folder that source `first` reads already."""
    mistakes.add(
        f"sources[{index}].path",
        f"is the folder of sources[{first}] too: two sources over one folder take each other's "
        "issues, remove one",
    )


def _check_routes(config: Config, mistakes: Mistakes) -> None:
    seen: dict[tuple[str, str], int] = {}
    for index, route in enumerate(config.routes):
        key = f"routes[{index}]"
        _check_known(route.repo, config.repos, f"{key}.repo", "repos", mistakes)
        _check_known(route.recipe, config.recipes, f"{key}.recipe", "recipes", mistakes)
        if route.keyword is not None:
            _check_keyword(route.keyword, f"{key}.keyword", mistakes)
        given = _list_criteria(route)
        if any(mistakes.concern(f"{key}.{name}") for name in _CRITERIA):
            continue
        if len(given) != 1:
            found = " and ".join(name for name, _ in given) or "none of them"
            mistakes.add(key, f"takes exactly one of {', '.join(_CRITERIA)}: it has {found}")
            continue
        first = seen.setdefault(given[0], index)
        if first != index:
            mistakes.add(
                f"{key}.{given[0][0]}",
                f"is never reached, for routes[{first}] matches the same issues: remove one",
            )


def _list_criteria(route: RouteConfig) -> list[tuple[str, str]]:
    pairs = (
        ("label", route.label),
        ("project", route.project),
        ("team", route.team),
        ("keyword", route.keyword),
        ("default", "" if route.default else None),
    )
    return [(name, value) for name, value in pairs if value is not None]


def _check_keyword(pattern: str, key: str, mistakes: Mistakes) -> None:
    try:
        measure_reach(pattern)
    except BadKeyword as error:
        mistakes.add(key, str(error))


def _check_recipe(config: Config, recipe: str, mistakes: Mistakes) -> None:
    """A recipe's agents exist, run once per stage and are told apart by their names."""
    key = f"recipes.{quote(recipe)}.stages"
    owners: dict[str, str] = {}
    for number, stage in enumerate(config.recipes[recipe].stages):
        for place, role in enumerate(stage):
            at = f"{key}[{number}][{place}]"
            _check_known(role, config.agents, at, "agents", mistakes)
            if role in stage[:place]:
                mistakes.add(at, f"{quote(role)} is in this stage already: name it once")
            agent = config.agents.get(role)
            if agent is None or mistakes.concern(f"agents.{quote(role)}.name"):
                continue
            owner = owners.setdefault(agent.name, role)
            if owner != role:
                mistakes.add(
                    at,
                    f"agents.{quote(role)} and agents.{quote(owner)} are both named "
                    f"{quote(agent.name)}: give one of them another name",
                )


def _check_agent(role: str, agent: AgentConfig, mistakes: Mistakes) -> None:
    key = f"agents.{quote(role)}"
    if len(agent.name) > 31 or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", agent.name):
        mistakes.add(
            f"{key}.name",
            f"is missing, and {quote(role)} cannot stand in for it: give a name of a-z, 0-9 and -, "
            "1 to 31 long",
        )
    for index, argument in enumerate(agent.command):
        wrong = find_mistake(argument)
        if wrong is not None:
            mistakes.add(f"{key}.command[{index}]", wrong)
    if agent.command and not agent.command[0]:
        mistakes.add(f"{key}.command[0]", "is empty: name the program to run")
    if any(name.startswith("issue.") for name in find_placeholders("".join(agent.command[:1]))):
        mistakes.add(
            f"{key}.command[0]",
            "the text of an issue cannot choose the program: name the program itself",
        )
    _check_pids(agent, key, mistakes)
    passed = {f"pass_env[{index}]": name for index, name in enumerate(agent.pass_env)}
    for place, name in {**passed, **{f"env.{name}": name for name in agent.env}}.items():
        if name.startswith("FACTORY_"):
            mistakes.add(
                f"{key}.{place}", "FACTORY_ variables are set by factoryd: choose another name"
            )


def _check_pids(agent: AgentConfig, key: str, mistakes: Mistakes) -> None:
    if agent.pids_max == 1:
        mistakes.add(
            f"{key}.pids_max", "leaves no process to the agent, as its shim is one: give 2 or more"
        )


def _check_known(
    name: str, known: Collection[str], key: str, section: str, mistakes: Mistakes
) -> None:
    if not known and mistakes.concern(section):
        return  # the section itself could not be read, which has been said
    if name not in known:
        mistakes.add(key, f"there is no [{section}.{quote(name)}]: add it or correct the name")
