"""Two hundred rounds of whatever happens, with one state directory: nothing adds up."""

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec
import psutil
import pytest
import trio

from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.events import (
    HandoffMade,
    IssueCancelled,
    IssueDone,
    IssueParked,
    IssueReopened,
    IssueStopping,
    OutcomeWritten,
    RunEmptied,
    RunStarting,
    kind_of,
)
from factoryd.core.lifecycle import IN_FLIGHT
from factoryd.core.registry import Registry
from tests.groups import walk_groups
from tests.system.daemons import CallFailed, Daemon, Place, a_place, connect, eventually, play

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(290)]

WARM_UP, DEADLY, STEADY = 15, 125, 60
"""Rounds before the first look, rounds in which daemons die, rounds of one daemon at the end."""

ALLOWANCE_BYTES = 4 << 20
"""What a daemon may have grown by: what it knows of the issues that ended meanwhile, and garbage."""

SECTIONS = {
    "dispatch": 'max_attempts = 2\nerror_cooldown = "30ms"\nmax_backoff = "1s"',
    "resume": 'max_resumes = 1\ndelay = "10ms"',
    "stop": 'grace = "100ms"',
}
ENOUGH = 12
"""Issues in flight from which on none are added."""

LABEL = """
exec 9>>../lock-$FACTORY_AGENT
flock -n -E 99 9 || [ $? -ne 99 ] || echo $FACTORY_RUN >>../overlaps
"""
SCRIPTS = (
    "exit 0",
    "exit 1",
    "[ -e ../once-$FACTORY_ISSUE ] && exit 0; touch ../once-$FACTORY_ISSUE; exit 75",
    "[ -e ../once-$FACTORY_ISSUE ] && exit 0; touch ../once-$FACTORY_ISSUE; exit 3",
    "seq 2000; sleep 0.2; exit 0",
    "setsid sleep 600 & exit 0",
    "sleep 600",
    "trap : TERM; while :; do sleep 600; done",
    play("child:2", "double-fork", "escape"),
    play("ignore:TERM", "setsid", "bare-child"),
)


class Size(msgspec.Struct, frozen=True):
    """How much a daemon has, with nothing to do."""

    descriptors: tuple[str, ...]
    tasks: int
    cgroups: tuple[str, ...]
    memory_bytes: int


class Soak:
    """One state directory and its daemons, one after the other."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.random = Random(seed)
        self.choices = Random(seed)
        """What is done next; how much of the other is used depends on what has happened."""
        self.daemon: Daemon | None = None
        self.keys: list[str] = []
        self.deaths = 0

    async def start(self) -> None:
        """Start a daemon and wait for it to answer."""
        self.daemon = await self.place.start()
        await eventually(self.answers)

    async def answers(self) -> bool:
        """Say whether the present daemon answers.

        What a killed daemon was forking holds its listening socket for a moment longer: who calls
        then is hung up on.
        """
        with suppress(EOFError, trio.BrokenResourceError):
            await self.running.call("Health")
            return True
        return False

    @property
    def running(self) -> Daemon:
        """Return the present daemon, which is alive."""
        assert self.daemon is not None
        assert self.daemon.process.returncode is None, self.place.log[-5000:]
        return self.daemon

    async def end(self) -> None:
        """Kill the present daemon, if there is one and it has not ended."""
        if self.daemon is not None:
            with trio.CancelScope(shield=True):
                if self.daemon.process.returncode is None:
                    self.daemon.process.kill()
                await self.daemon.process.wait()

    async def one_round(self, *, deadly: bool) -> None:
        """Do something, hardly ever the same twice."""
        choice = self.choices.random()
        if choice < 0.45:
            await self.put()
        elif choice < 0.75:
            await self.kill_some(wait=self.random.random() < 0.7)
        elif choice < 0.9 and deadly:
            await self.die()
        elif choice < 0.93 and deadly:
            assert await self.running.stop() == 0, self.place.log[-5000:]
            await self.start()
        else:
            await trio.sleep(self.random.random() * 0.1)

    async def put(self) -> None:
        """Put some issues, unless there are many."""
        if len(await self.in_flight()) < ENOUGH:
            for _ in range(self.random.randint(1, 3)):
                self.keys.append(f"A-{len(self.keys) + 1}")
                self.place.put(self.keys[-1], LABEL + self.random.choice(SCRIPTS))

    async def kill_some(self, *, wait: bool) -> None:
        """Kill some of what is in flight, at once or with the usual grace."""
        flying = await self.in_flight()
        targets = self.random.sample(flying, min(len(flying), self.random.randint(1, 4)))
        if targets:
            with suppress(CallFailed):  # one has ended meanwhile
                now = self.random.random() < 0.3
                await self.running.call("Kill", targets=targets, now=now, wait=wait)

    async def die(self) -> None:
        """Kill the daemon in the midst of whatever it does, and perhaps the next while it starts."""
        self.deaths += 1
        if self.random.random() < 0.5:
            await self.kill_some(wait=False)
        await trio.sleep(self.random.random() * 0.05)
        await self.end()
        if self.random.random() < 0.3:
            self.daemon = await self.place.start()
            await trio.sleep(self.random.random() * 0.5)
            await self.end()
        await self.start()

    async def in_flight(self) -> list[str]:
        """Return the issues that are worked on now."""
        shown = (await self.running.status())["issues"]
        return [one["key"] for one in shown if one["state"] in IN_FLIGHT]

    async def settle(self) -> None:
        """End all that goes on, and return when nothing does and everything is written back."""
        await eventually(self.is_quiet, 60)

    async def is_quiet(self) -> bool:
        with suppress(CallFailed):
            await self.running.call("Kill", all=True)
        status = await self.running.status()
        states = Counter(one["state"] for one in status["issues"])
        if states["ready"] or not set(states).isdisjoint(IN_FLIGHT) or status["handoffs"]:
            return False
        facts = await trio.to_thread.run_sync(kinds_of, self.place)
        ends = len(self.keys) + facts["issue-reopened"]
        return facts["outcome-written"] == ends and len(self.keys) == len(status["issues"])

    async def size(self) -> Size:
        """Return how much the daemon has once it has done nothing for a moment."""
        found = list[tuple[int, tuple[str, ...], tuple[str, ...]]]()
        async with connect(self.place.socket) as client:
            while len(found) < 10 or found[-1] != found[-5]:
                await trio.sleep(0.05)
                tasks = (await client.call("Health"))["tasks"]  # it answers, so it is not held up
                found.append((tasks, *self.look()))
        tasks, descriptors, cgroups = found[-1]
        return Size(descriptors, tasks, cgroups, psutil.Process(self.running.pid).memory_info().rss)

    def look(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        opened = Path(f"/proc/{self.running.pid}/fd")
        names: list[str] = []
        for each in opened.iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                names.append(str(each.readlink()).partition(":[")[0])
        cgroups = map(str, walk_groups(self.place.cgroup))
        return tuple(sorted(names)), tuple(sorted(cgroups))


def kinds_of(place: Place) -> Counter[str]:
    """Return how often each kind of fact has happened."""
    store = SqliteStore(place.state / "ledger.sqlite", read_only=True)
    try:
        return Counter(kind_of(one.fact) for one in store.read_facts(0, 1_000_000, None))
    finally:
        store.close()


@pytest.mark.parametrize(
    ("containment", "seed"), [("cgroup", 1977), ("subreaper", 2024)], ids=["cgroup", "subreaper"]
)
async def test_after_many_rounds_and_deaths_the_daemon_has_what_it_had_before(containment, seed):
    with a_place(factory=f'slots = 20\ncontainment = "{containment}"', **SECTIONS) as place:
        soak = Soak(place, seed)
        try:
            await soak.start()
            for _ in range(WARM_UP):
                await soak.one_round(deadly=False)
            await soak.settle()
            first = await soak.size()
            for _ in range(DEADLY):
                await soak.one_round(deadly=True)
            await soak.settle()
            assert await soak.running.stop() == 0
            await soak.start()
            for _ in range(WARM_UP):
                await soak.one_round(deadly=False)
            await soak.settle()
            before = await soak.size()
            for _ in range(STEADY - WARM_UP):
                await soak.one_round(deadly=False)
            await soak.settle()
            after = await soak.size()
            assert await soak.running.stop() == 0
        finally:
            await soak.end()
        assert soak.deaths > 10
        assert after.descriptors == before.descriptors == first.descriptors
        assert after.tasks == before.tasks == first.tasks
        assert after.cgroups == before.cgroups == first.cgroups
        assert after.memory_bytes - before.memory_bytes < ALLOWANCE_BYTES
        assert place.survivors() == []
        assert not place.cgroup.exists()
        check_ledger(place, soak.keys)


def check_ledger(place: Place, keys: list[str]) -> None:
    """Replay everything: it is legal, and every issue has ended once, as its source shows it.

    One that was brought back has ended once more.
    """
    assert not (place.root / "overlaps").exists(), "an agent ran twice at once"
    store = SqliteStore(place.state / "ledger.sqlite")
    try:
        recorded = store.read_facts(0, 1_000_000, None)
        snapshot, _ = store.load()
    finally:
        store.close()
    replayed = Registry.replay(None, recorded)
    assert snapshot is not None
    assert replayed.issues == Registry.replay(snapshot, ()).issues
    facts = [one.fact for one in recorded]
    lives = Counter(keys) + Counter(one.issue for one in facts if isinstance(one, IssueReopened))
    ends = [one for one in facts if isinstance(one, IssueDone | IssueParked | IssueCancelled)]
    withdrawn = [one for one in facts if isinstance(one, IssueStopping) and one.withdraws]
    assert Counter(one.issue for one in ends) == lives + Counter(one.issue for one in withdrawn)
    assert Counter(one.issue for one in facts if isinstance(one, OutcomeWritten)) == lives
    runs = [one.run for one in facts if isinstance(one, RunStarting)]
    closed = [one.run for one in facts if isinstance(one, RunEmptied | HandoffMade)]
    assert sorted(runs) == sorted(closed)
    for key in keys:
        (outcome,) = place.root.glob(f"issues/*/{key}.md.outcome.json")
        assert json.loads(outcome.read_text())["state"] == replayed.issues[key.lower()].state
