"""factoryctl looks for the socket where the daemon makes it."""

from pathlib import Path

import pytest

from factoryctl.places import find_sockets
from factoryd.adapters.directories import find_directories

ENVIRONMENTS = {
    "a login": {"HOME": "/home/a", "XDG_RUNTIME_DIR": "/run/user/7"},
    "no login": {"HOME": "/home/a"},
    "own state home": {"HOME": "/home/a", "XDG_STATE_HOME": "/data"},
    "relative variables": {"HOME": "/home/a", "XDG_STATE_HOME": "data", "XDG_RUNTIME_DIR": "run"},
    "a service": {"RUNTIME_DIRECTORY": "/run/f:/run/g", "STATE_DIRECTORY": "/var/lib/f"},
    "a state only": {"HOME": "/home/a", "STATE_DIRECTORY": "/var/lib/f:/var/lib/g"},
}


def find(environ, *, is_root=False, socket=None, runtime=None, state=None):
    return find_sockets(
        socket=socket, runtime=runtime, state=state, environ=environ, is_root=is_root
    )


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize("state", [None, "/srv/state"])
@pytest.mark.parametrize("runtime", [None, "/srv/run"])
@pytest.mark.parametrize("environ", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_the_first_place_is_where_a_daemon_called_alike_listens(environ, runtime, state, is_root):
    daemon = find_directories(state, runtime, environ, is_root=is_root)
    sockets = find(environ, runtime=runtime, state=state, is_root=is_root)
    assert sockets[0] == str(daemon.runtime / "control.sock")


def test_a_named_socket_is_the_only_place():
    environ = {"FACTORYD_SOCKET": "/env/sock", "RUNTIME_DIRECTORY": "/run/f"}
    assert find(environ, socket="/my/sock") == ["/my/sock"]
    assert find(environ) == ["/env/sock"]
    assert find(environ, runtime="/srv/run") == ["/env/sock"]


def test_roots_daemon_and_ones_own_are_both_looked_for():
    environ = ENVIRONMENTS["a login"]
    own, system = "/run/user/7/factoryd/control.sock", "/run/factoryd/control.sock"
    assert find(environ, is_root=True) == [system, own]
    assert find(environ) == [own, system]


def test_without_any_home_only_the_systems_daemon_is_looked_for():
    assert find({}) == [str(Path("/run/factoryd/control.sock"))]
