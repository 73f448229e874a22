"""A supervisor that is up, and all of them by name."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import NamedTuple

from bench.ground import Ground, a_ground
from bench.peers.port import Peer

PEERS = {
    "bare Popen": "bench.peers.bare:PopenLoop",
    "bare trio": "bench.peers.bare:TrioLoop",
    "factoryd": "bench.peers.factory:Factoryd",
    "s6": "bench.peers.s6:S6",
    "runit": "bench.peers.runit:Runit",
    "systemd": "bench.peers.systemd:Systemd",
    "supervisord": "bench.peers.supervisord:Supervisord",
    "circus": "bench.peers.circus:Circus",
    "pm2": "bench.peers.pm2:Pm2",
}
"""Where each is; its module is imported only when it is measured, as it may need a client."""


class Session(NamedTuple):
    """A supervisor and the ground it works on."""

    peer: Peer
    ground: Ground


class Sessions:
    """Starts supervisors. The machine in which systemd runs is booted once for all, if at all."""

    def __init__(self, machine: object = None) -> None:
        self._machine = machine

    @contextmanager
    def open(self, name: str) -> Iterator[Session]:
        """Start a supervisor on a new ground; in the end nothing is left of either."""
        module, _, kind = PEERS[name].partition(":")
        with self._ground(name) as ground:
            peer: Peer = getattr(import_module(module), kind)(ground)
            peer.up()
            try:
                yield Session(peer, ground)
            finally:
                peer.down()

    def _ground(self, name: str) -> AbstractContextManager[Ground]:
        if name != "systemd":
            return a_ground()
        grounds = import_module("bench.peers.systemd")
        ground: AbstractContextManager[Ground] = grounds.a_systemd_ground(self._machine)
        return ground
