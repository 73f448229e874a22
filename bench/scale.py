"""How much is measured: all of it, or so little that it is a test."""

from dataclasses import dataclass

from bench.sessions import PEERS
from bench.work import growing, output


@dataclass(frozen=True)
class Scale:
    """Numbers of agents and repeats, for each kind of work."""

    peers: tuple[str, ...]
    fleets: tuple[tuple[int, int], ...]
    """Agents that are started, looked at and stopped, each with its repeats."""
    trees: tuple[int, int]
    """Trees that are stopped one by one, and repeats."""
    crash: tuple[int, int]
    """Agents of a supervisor that is killed, and repeats."""
    sigkills: int
    """How often one daemon after the other is killed under the same agents, factoryd only."""
    successions: int
    idle: tuple[int, float]
    """Idle agents, and for how long they are watched (seconds); none, if there are none."""
    growth: tuple[int, ...]
    growth_idle_s: float
    growing: tuple[str, ...]
    output: tuple[int, int]
    """Writing agents, and for how long they write (seconds)."""
    writing: tuple[str, ...]


FULL = Scale(
    peers=tuple(PEERS),
    fleets=((100, 3), (500, 2)),
    trees=(5, 2),
    crash=(10, 3),
    sigkills=100,
    successions=1,
    idle=(100, 30),
    growth=(1, 10, 100, 1000),
    growth_idle_s=5,
    growing=growing.PEERS,
    output=(100, 20),
    writing=output.PEERS,
)

SMOKE = Scale(
    peers=("bare trio", "factoryd"),
    fleets=((5, 1),),
    trees=(2, 1),
    crash=(3, 1),
    sigkills=2,
    successions=0,
    idle=(0, 0),
    growth=(),
    growth_idle_s=0,
    growing=(),
    output=(2, 1),
    writing=("factoryd",),
)
"""In a few seconds, for its counts alone: no figure of it says anything."""
