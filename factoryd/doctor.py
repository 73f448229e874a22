"""`factoryd doctor`: looks at everything that a daemon with these options would depend on."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from factoryd.adapters.config_file import find_config, load_config
from factoryd.adapters.directories import Directories, find_directories
from factoryd.adapters.machine import (
    check_agent,
    check_directory,
    check_git,
    check_journal,
    check_pidfd,
    check_socket,
    check_sqlite,
    check_witness,
    look_at_cgroups,
)
from factoryd.core.checkup import (
    Check,
    Checkup,
    InForce,
    Verdict,
    check_containment,
    check_controllers,
    check_watchdog,
)
from factoryd.core.config import Config
from factoryd.core.errors import BadUsage, ConfigInvalid
from factoryd.daemon import tree_root_name

Look = tuple[str, Callable[[], Check]]
"""The name of a thing, and what looks at it."""


def examine(
    config: str | None,
    state: str | None,
    runtime: str | None,
    environ: Mapping[str, str],
    in_force: InForce,
) -> Checkup:
    """Return how everything is that a daemon with these options needs.

    What is `in_force` in one that runs is not guessed at. Nothing is left changed. What cannot be looked at has failed, and hides nothing else.
    """
    is_root = os.geteuid() == 0
    checks: list[Check] = []
    used, directories = Config(), None
    try:
        loaded = load_config(find_config(config, environ, is_root=is_root))
    except ConfigInvalid as error:
        checks += [_failed("configuration", one) for one in error.mistakes]
    else:
        used = loaded.config
        checks.append(Check(name="configuration", state=Verdict.OK, detail=str(loaded.path)))
    try:
        directories = find_directories(state, runtime, environ, is_root=is_root)
    except BadUsage as error:
        checks.append(_failed("state directory", str(error)))
    looks = [
        *_directories(directories),
        *_containment(directories, used, in_force),
        ("pidfd", check_pidfd),
        ("exit statuses", check_witness),
        ("sqlite", check_sqlite),
        *_services(used, environ),
        *_programs(used, environ),
    ]
    return Checkup(checks=(*checks, *(_look(name, look) for name, look in looks)))


def _directories(directories: Directories | None) -> list[Look]:
    if directories is None:
        return []
    socket = directories.runtime / "control.sock"
    places: dict[str, Path] = {
        "state directory": directories.state,
        "runtime directory": directories.runtime,
    }
    return [
        *((name, partial(check_directory, name, place)) for name, place in places.items()),
        ("control socket", partial(check_socket, socket)),
    ]


def _containment(directories: Directories | None, config: Config, in_force: InForce) -> list[Look]:
    look = look_at_cgroups(tree_root_name(directories.state) if directories is not None else "")
    wanted = config.factory.containment
    told = in_force.controllers
    controllers = look.controllers if told is None else told
    as_root = os.geteuid() == 0 and in_force.containment is None  # whose a running one is, it knows
    return [
        ("containment", partial(check_containment, look, wanted, in_force.containment)),
        ("controllers", partial(check_controllers, controllers, config.agents, as_root=as_root)),
    ]


def _services(config: Config, environ: Mapping[str, str]) -> list[Look]:
    notify, watchdog = environ.get("NOTIFY_SOCKET", ""), environ.get("WATCHDOG_USEC", "")
    interval_s = config.heartbeat.interval
    manager = partial(check_watchdog, notify, watchdog, interval_s)
    journal: list[Look] = [("journal", check_journal)] if config.output.journal else []
    return [("service manager", manager), *journal]


def _programs(config: Config, environ: Mapping[str, str]) -> list[Look]:
    worktrees = any(repo.workspace == "worktree" for repo in config.repos.values())
    git: list[Look] = [("git", partial(check_git, environ))] if worktrees else []
    agents = config.agents.items()
    return [
        *git,
        *((f"agent {role}", partial(check_agent, role, one, environ)) for role, one in agents),
    ]


def _look(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:  # noqa: BLE001  the fence: what is broken here hides nothing else
        return _failed(name, f"cannot be looked at: {error}")


def _failed(name: str, detail: str) -> Check:
    return Check(name=name, state=Verdict.FAILED, detail=detail)
