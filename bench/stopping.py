"""How long it takes until nothing is left of an agent that is to end."""

import os
import signal
import time
from pathlib import Path
from statistics import median

from bench.factory import NAP, SCRIPT, Connection, Factory, wait_until
from bench.figures import Figure, seconds_of
from bench.groups import bare_group, end_group, run_in

GRACE_S = 5.0
SETTLE_S = 0.2
"""From an agent's word that all its children are forked until they sleep."""


UP = ': >"up-$FACTORY_ISSUE"'
"""What the script of a tree does when all of it is forked. See `Factory.wait_up`."""


def tree(processes: int, then: str = UP) -> str:
    """Return the script of an agent of so many processes, a daemonised grandchild among them."""
    nap = " ".join(NAP)
    lines = [f"{nap} &" for _ in range(processes - 2)]
    return "\n".join([*lines, f"(setsid {nap} &)", then, f"exec {nap}"])


def kill_tree() -> list[Figure]:
    """Measure `Kill` of an agent of 22 processes, to its answer: they are proven gone (ms)."""
    return [_kill_one_by_one(22, repeats=40, target_ms=10)]


def kill_large_tree() -> list[Figure]:
    """Measure `Kill` of an agent of 1,000 processes, to its answer: they are proven gone (ms)."""
    return [_kill_one_by_one(1000, repeats=7, target_ms=150)]


def kill_many(count: int = 100) -> list[Figure]:
    """Measure `Kill` of many agents at once, every tenth of which ignores SIGTERM (s)."""
    with Factory(SCRIPT, grace=f"{GRACE_S:g}s") as factory:
        factory.submit(count, _stubborn)
        for n in range(count):
            factory.wait_up(n)
        time.sleep(SETTLE_S)
        with Connection(factory.socket) as connection:
            began = time.perf_counter()
            answer = connection.call("Kill", all=True)
            value = time.perf_counter() - began
        assert len(answer["agents"]) == count
        assert all(agent["emptied"] for agent in answer["agents"])
    bare = _kill_many_by_hand(count)
    return [
        Figure(
            name=f"kill of {count} agents, 1 in 10 stubborn (s)",
            value=value,
            baseline=bare,
            target=f"at most 5.5 s, grace {GRACE_S:g} s (compared with signals by hand)",
            met=value <= 5.5,
        )
    ]


def _stubborn(n: int, then: str = UP) -> str:
    return f"trap '' TERM\n{tree(3, then)}" if n % 10 == 0 else tree(3, then)


def _kill_one_by_one(processes: int, *, repeats: int, target_ms: float) -> Figure:
    """Kill one agent after the other; compared with `cgroup.kill` of such a tree by hand.

    The shim is one process more, and may have ended by itself before its turn comes.
    """
    ours: list[float] = []
    bare: list[float] = []
    with Factory(SCRIPT) as factory, Connection(factory.socket) as connection:
        for n in range(repeats):
            bare.append(_kill_by_hand(processes))
            factory.submit(1, lambda _: tree(processes), first=n)
            factory.wait_up(n)
            time.sleep(SETTLE_S)
            began = time.perf_counter()
            answer = connection.call("Kill", targets=[f"B-{n}"])
            ours.append(time.perf_counter() - began)
            (agent,) = answer["agents"]
            assert agent["emptied"], agent
            assert agent["signals"] == ["SIGTERM"], agent
            assert agent["killed"] >= processes, agent
    value, baseline = median(ours) * 1000, median(bare) * 1000
    return Figure(
        name=f"kill of an agent of {processes} processes (ms)",
        value=value,
        baseline=baseline,
        target=f"median at most {target_ms:g} ms (compared with cgroup.kill by hand)",
        met=value <= target_ms,
    )


def _kill_by_hand(processes: int) -> float:
    with bare_group() as group:
        agent = run_in(group, ["sh", "-c", tree(processes, ":")])
        wait_until(lambda: _members(group) >= processes)
        time.sleep(SETTLE_S)
        took = seconds_of(lambda: end_group(group))
        agent.wait()
    return took


def _kill_many_by_hand(count: int) -> float:
    with bare_group() as group:
        agents = [run_in(group, ["sh", "-c", _stubborn(n, ":")]) for n in range(count)]
        wait_until(lambda: _members(group) >= 3 * count)
        time.sleep(SETTLE_S)
        began = time.perf_counter()
        for agent in agents:
            os.killpg(agent.pid, signal.SIGTERM)  # a child not waited for yet: its group is ours
        time.sleep(GRACE_S)
        end_group(group)
        took = time.perf_counter() - began
        for agent in agents:
            agent.wait()
    return took


def _members(group: Path) -> int:
    return len((group / "cgroup.procs").read_text().split())
