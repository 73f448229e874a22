"""Where a daemon's control socket may be."""

import os
from collections.abc import Mapping

SOCKET = "control.sock"


def find_sockets(
    *,
    socket: str | None,
    runtime: str | None,
    state: str | None,
    environ: Mapping[str, str],
    is_root: bool,
) -> list[str]:
    """Return the paths to try, in order; a place that was named is the only one.

    `socket`, `runtime` and `state` are the options of those names. The other files of a daemon's
    runtime directory lie beside its socket.
    """
    named = socket or environ.get("FACTORYD_SOCKET")
    if named:
        return [named]
    directory = runtime or _first(environ.get("RUNTIME_DIRECTORY"))
    if directory:
        return [os.path.join(directory, SOCKET)]  # noqa: PTH118  pathlib is slow to import
    own = _own_directory(state, environ)
    directories = ["/run/factoryd", own] if is_root else [own, "/run/factoryd"]
    return [os.path.join(one, SOCKET) for one in directories if one]  # noqa: PTH118


def _own_directory(state: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the runtime directory of a daemon that a user started."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/"):
        return f"{base}/factoryd"
    directory = state or _first(environ.get("STATE_DIRECTORY")) or _own_state(environ)
    return f"{directory}/run" if directory else None


def _own_state(environ: Mapping[str, str]) -> str | None:
    base, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if base.startswith("/"):
        return f"{base}/factoryd"
    return f"{home}/.local/state/factoryd" if home.startswith("/") else None


def _first(directories: str | None) -> str | None:
    """Return the first of the directories systemd lists, separated by colons."""
    return (directories or "").partition(":")[0] or None
