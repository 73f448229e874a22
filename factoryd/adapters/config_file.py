"""The configuration file: where it is, what it says about the file system, how it is printed."""

import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import msgspec
import tomli_w

from factoryd.adapters.directories import find_home
from factoryd.core.config import AgentConfig, Config, RepoConfig, SourceConfig
from factoryd.core.config_check import Mistakes, add_shared_folder, quote
from factoryd.core.config_parse import read_config, to_document
from factoryd.core.errors import ConfigInvalid
from factoryd.core.model import Data
from factoryd.core.template import escape, find_literal

MAX_FILE_BYTES = 1 << 20

_NAME = "factoryd.toml"
_PLACE = re.compile(r"(?P<reason>.*) \(at (?P<place>[^()]*)\)", re.DOTALL)


class LoadedConfig(Data, frozen=True, kw_only=True):
    """A valid configuration and the file it came from; its paths are absolute and exist."""

    config: Config
    path: Path
    base_dir: Path
    """The file's directory, which relative paths in it start from."""


def find_config(explicit: str | None, environ: Mapping[str, str], *, is_root: bool) -> Path:
    """Return the configuration file to read: `explicit`, else the first that exists.

    Looked at are $CONFIGURATION_DIRECTORY, then /etc/factoryd for root or $XDG_CONFIG_HOME/factoryd
    for others. Raise `ConfigInvalid` with the places when there is none.
    """
    if explicit:
        return Path(explicit).absolute()
    given = environ.get("CONFIGURATION_DIRECTORY", "").split(":")
    places = [Path(each).absolute() / _NAME for each in given if each]
    home = find_home(environ, "XDG_CONFIG_HOME", ".config")
    if is_root:
        places.append(Path("/etc/factoryd", _NAME))
    elif home is not None:
        places.append(home / "factoryd" / _NAME)
    for place in places:
        if _may_exist(place):
            return place
    looked = ", ".join(str(place) for place in places) or "nowhere, for HOME is not set"
    raise ConfigInvalid(
        (f"no configuration: looked at {looked}: write one there or name it with --config FILE",)
    )


def load_config(path: Path) -> LoadedConfig:
    """Return the configuration that a file holds, checked against the file system.

    Paths become absolute, with symbolic links resolved; an agent's `./program` beside the file
    becomes absolute. Raise `ConfigInvalid` with every mistake, one `FILE: key: reason` each.
    """
    path = path.absolute()
    document = _read_document(path)
    mistakes = Mistakes(str(path))
    config = _resolve(read_config(document, mistakes), path.parent, mistakes)
    mistakes.raise_any()
    return LoadedConfig(config=config, path=path, base_dir=path.parent)


def render_toml(config: Config) -> str:
    """Return the effective configuration as TOML that reads as an equal `Config`."""
    parts: list[str] = []
    for name, value in to_document(config).items():
        if isinstance(value, list):
            tables = cast("list[dict[str, object]]", value)
            parts.extend(f"[[{name}]]\n{tomli_w.dumps(table)}" for table in tables)
        else:
            parts.append(tomli_w.dumps({name: value}))
    return "\n".join(parts)


def _may_exist(path: Path) -> bool:
    """Say whether something is there, or may be: only reading it would tell."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read_document(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            body = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise _fail(path, "no such file: write it or name another with --config FILE") from error
    except (OSError, ValueError) as error:
        advice = "mend that or name another file with --config FILE"
        raise _fail(path, f"cannot be read ({_reason(error)}): {advice}") from error
    if len(body) > MAX_FILE_BYTES:
        raise _fail(path, f"is larger than {MAX_FILE_BYTES} bytes: is it the right file?")
    try:
        return tomllib.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise _fail(path, f"line {line}: is not UTF-8: save the file as UTF-8") from error
    except RecursionError as error:
        raise _fail(path, "is nested too deeply: is it the right file?") from error
    except ValueError as error:
        found = _PLACE.fullmatch(str(error))
        where, reason = (found["place"], found["reason"]) if found else ("TOML", str(error))
        raise _fail(path, f"{where}: {reason}") from error


def _fail(path: Path, reason: str) -> ConfigInvalid:
    return ConfigInvalid((f"{path}: {reason}",))


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _resolve(config: Config, base: Path, mistakes: Mistakes) -> Config:
    """Return the configuration with absolute paths, adding what is wrong with them."""
    folders: dict[tuple[int, int], int] = {}
    sources: list[SourceConfig] = []
    for index, source in enumerate(config.sources):
        folder = _find_directory(source.path, base, f"sources[{index}].path", mistakes)
        sources.append(msgspec.structs.replace(source, path=folder.path if folder else source.path))
        first = folders.setdefault(folder.identity, index) if folder else index
        if first != index:
            add_shared_folder(index, first, mistakes)
    return msgspec.structs.replace(
        config,
        sources=tuple(sources),
        repos={
            name: _resolve_repo(repo, base, f"repos.{quote(name)}.path", mistakes)
            for name, repo in config.repos.items()
        },
        agents={role: _place_program(agent, base) for role, agent in config.agents.items()},
    )


def _resolve_repo(repo: RepoConfig, base: Path, key: str, mistakes: Mistakes) -> RepoConfig:
    directory = _find_directory(repo.path, base, key, mistakes)
    if directory is None:
        return repo
    if repo.workspace == "worktree" and not directory.is_repository:
        mistakes.add(
            key,
            f"is not a git repository: {_show(Path(directory.path))}: run git init there, correct "
            "the path or choose another workspace",
        )
    return msgspec.structs.replace(repo, path=directory.path)


class _Directory(Data, frozen=True, kw_only=True):
    """A directory that is there: its path without symbolic links, and which one it is."""

    path: str
    identity: tuple[int, int]
    is_repository: bool


def _find_directory(written: str, base: Path, key: str, mistakes: Mistakes) -> _Directory | None:
    """Return the directory that a path in the file means, None with a mistake when none is."""
    if not written:
        return None
    path = base / written
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
        if stat.S_ISDIR(status.st_mode):
            return _Directory(
                path=str(resolved),
                identity=(status.st_dev, status.st_ino),
                is_repository=_is_repository(resolved),
            )
        mistakes.add(key, f"is not a directory: {_show(path)}: correct the path")
    except (FileNotFoundError, NotADirectoryError):
        mistakes.add(key, f"no such directory: {_show(path)}: create it or correct the path")
    except (OSError, RuntimeError) as error:
        reason = _reason(error) if isinstance(error, OSError) else "symbolic links in a circle"
        mistakes.add(key, f"cannot be used ({reason}): {_show(path)}: mend or correct it")
    return None


def _show(path: Path) -> str:
    return str(path) if str(path).isprintable() else quote(str(path))


def _is_repository(path: Path) -> bool:
    """Say whether a directory is the top of a git repository, bare or not."""
    bare = (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
    return bare or (path / ".git").exists()


def _place_program(agent: AgentConfig, base: Path) -> AgentConfig:
    """Make a `./program` that stands beside the configuration file absolute."""
    program = find_literal(agent.command[0]) if agent.command else None
    if program is None or "/" not in program or program.startswith("/"):
        return agent
    beside = base / program
    try:
        if not beside.is_file():
            return agent
    except OSError:
        return agent
    command = (escape(str(beside)), *agent.command[1:])
    return msgspec.structs.replace(agent, command=command)
