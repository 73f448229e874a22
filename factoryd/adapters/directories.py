"""Where a daemon keeps its state and its runtime files."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from factoryd.core.errors import BadUsage
from factoryd.core.model import Data

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Directories(Data, frozen=True, kw_only=True):
    """The daemon's own directories, absolute."""

    state: Path
    """What outlives the daemon and the machine's power: the ledger, runs, workspaces."""
    runtime: Path
    """What matters only while a daemon runs: socket, lock, heartbeat."""


def find_directories(
    state: str | None, runtime: str | None, environ: Mapping[str, str], *, is_root: bool
) -> Directories:
    """Return the directories that options, else the environment, else custom choose.

    Nothing is created or looked at. Raise `BadUsage` when nothing says where the state is.
    """
    state_directory = _find_state(state, environ, is_root=is_root)
    return Directories(
        state=state_directory,
        runtime=_find_runtime(runtime, environ, state_directory, is_root=is_root),
    )


def find_home(environ: Mapping[str, str], variable: str, custom: str) -> Path | None:
    """Return a base directory of the XDG specification, None when there is no home either.

    `custom` is its place below the home directory. As the specification says, a variable that
    does not hold an absolute path is ignored.
    """
    chosen = environ.get(variable, "")
    if chosen.startswith("/"):
        return Path(chosen)
    home = environ.get("HOME", "")
    return Path(home, custom) if home.startswith("/") else None


def make_directories(directories: Directories) -> None:
    """Create what is missing: the state for us alone (0700), the runtime for all to enter (0755).

    A directory that exists is left as it is. Raise `BadUsage` when one cannot be made, is not a
    directory, or is such that someone else could put files into it.
    """
    _make(directories.state, 0o700)
    _make(directories.runtime, 0o755)


def find_fault(directory: Path) -> str | None:
    """Say why this user could not keep files in a directory; None when it could.

    Nothing is created: of one that is missing, the place where it would be made is looked at.
    """
    try:
        _check_private(directory)
    except FileNotFoundError:
        above = next(one for one in directory.parents if one.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            return f"{directory}: cannot be made: {above} is not a directory to write in"
        return None
    except BadUsage as error:
        return str(error)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return f"{directory}: cannot be used ({reason})"
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        return f"{directory}: this user may not write there"
    return None


def _find_state(option: str | None, environ: Mapping[str, str], *, is_root: bool) -> Path:
    given = option or _first(environ.get("STATE_DIRECTORY"))
    if given:
        return Path(given).absolute()
    if is_root:
        return Path("/var/lib/factoryd")
    home = find_home(environ, "XDG_STATE_HOME", ".local/state")
    if home is None:
        raise BadUsage("no state directory: HOME is not set: set it or give --state-dir")
    return home / "factoryd"


def _find_runtime(
    option: str | None, environ: Mapping[str, str], state: Path, *, is_root: bool
) -> Path:
    given = option or _first(environ.get("RUNTIME_DIRECTORY"))
    if given:
        return Path(given).absolute()
    if is_root:
        return Path("/run/factoryd")
    base = environ.get("XDG_RUNTIME_DIR", "")
    return Path(base, "factoryd") if base.startswith("/") else state / "run"


def _first(directories: str | None) -> str | None:
    """Return the first of the directories systemd lists, separated by colons."""
    return (directories or "").partition(":")[0] or None


def _make(directory: Path, mode: int) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            _check_private(directory)
        else:
            directory.chmod(mode)  # mkdir's mode is subject to the umask
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadUsage(
            f"{directory}: cannot be used ({reason}): mend that or choose another directory"
        ) from error


def _check_private(directory: Path) -> None:
    status = directory.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise BadUsage(f"{directory}: is not a directory: remove it or choose another directory")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        raise BadUsage(
            f"{directory}: others may write there: run chmod go-w on it or choose another directory"
        )
    if status.st_uid not in {0, os.geteuid()}:
        raise BadUsage(
            f"{directory}: belongs to user {status.st_uid}: "
            "run chown on it or choose another directory"
        )
