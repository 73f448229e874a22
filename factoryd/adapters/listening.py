"""The control socket: the one that systemd holds for the daemon, else one of the daemon's own."""

import os
import socket
from collections.abc import MutableMapping
from pathlib import Path

import trio

from factoryd.core.errors import BadUsage

_FIRST = 3
"""The first descriptor that systemd passes (sd_listen_fds(3))."""


def open_control_socket(path: Path, environ: MutableMapping[str, str]) -> trio.SocketListener:
    """Return a listening socket at `path`: what systemd passes, or one made here.

    One that systemd holds outlives this process, and so do callers that wait in it; its file is
    systemd's. The variables it was announced in are taken out of `environ`. The caller holds the
    lock. Raises `BadUsage` when there is none to be had, or what was passed is not that.
    """
    passed = _take_passed(environ)
    if not passed:
        return bind_control_socket(path)
    if len(passed) > 1:
        names = ", ".join(name for _, name in passed)
        raise BadUsage(f"systemd passes {names}, and factoryd has one socket: mend its socket unit")
    ((descriptor, name),) = passed
    try:
        listening = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise _mistaken(name, f"no socket ({error.strerror})") from error
    try:
        _check(listening, name, path)
    except BaseException:
        listening.close()
        raise
    os.close(descriptor)  # which programs started from here would inherit
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _take_passed(environ: MutableMapping[str, str]) -> list[tuple[int, str]]:
    """Return the descriptors passed to this very process, with what systemd calls them.

    Those of a parent, announced to it in an environment that was handed on, are none of ours.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    names += ["unknown"] * int(count)
    return [(_FIRST + number, names[number] or "unknown") for number in range(int(count))]


def _check(listening: socket.socket, name: str, path: Path) -> None:
    """Raise `BadUsage` unless this is a Unix stream socket that listens at `path`."""
    try:
        domain = listening.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
        kind = listening.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        listens = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        address = listening.getsockname()
    except OSError as error:
        raise _mistaken(name, f"no socket ({error.strerror})") from error
    if (domain, kind) != (socket.AF_UNIX, socket.SOCK_STREAM) or not listens:
        raise _mistaken(name, "no Unix stream socket that listens")
    if not isinstance(address, str) or os.path.realpath(address) != os.path.realpath(path):
        raise _mistaken(name, f"a socket at {address}: have it say ListenStream={path}")


def _mistaken(name: str, what: str) -> BadUsage:
    return BadUsage(f"what systemd passes as {name} is {what}: mend its socket unit")


def bind_control_socket(path: Path) -> trio.SocketListener:
    """Return a listening socket at `path`, in place of one that a dead daemon left.

    Anyone may connect: who may do what is decided by who they are. The caller holds the lock.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listening.bind(os.fspath(path))
        path.chmod(0o666)
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise BadUsage(
            f"{path}: the control socket cannot be made: {error}: give another --runtime-dir"
        ) from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))
