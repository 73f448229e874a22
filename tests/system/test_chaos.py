"""Minutes of everything at once: at the end every issue has one outcome, and nothing ran twice."""

import json
import os
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import trio
from typing_extensions import override

from factoryd.adapters.pidfd import PidFd, identify, open_verified
from factoryd.adapters.proc import read_argv
from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.events import IssueReopened
from factoryd.core.lifecycle import IN_FLIGHT, TERMINAL
from tests.system.daemons import CallFailed, Place, a_place
from tests.system.test_soak import Soak, check_ledger

LASTS_S = float(os.environ.get("CHAOS_SECONDS", "180"))
"""How long it goes on; a run by hand may shorten it, and choose another seed."""

SEED = int(os.environ.get("CHAOS_SEED", "4242"))

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(180 + 2 * LASTS_S)]

SECTIONS = {
    "factory": "slots = 8",
    "dispatch": 'max_attempts = 2\nerror_cooldown = "50ms"\nmax_backoff = "500ms"',
    "resume": 'max_resumes = 1\ndelay = "10ms"',
    "stop": 'grace = "200ms"',
}

STAMP = """
stamp() { echo "$1 $FACTORY_ISSUE $FACTORY_ATTEMPT $FACTORY_AGENT $FACTORY_RUN" >>../stamps; }
exec 9>>../lock-$FACTORY_AGENT
flock -n -E 99 9 || [ $? -ne 99 ] || echo $FACTORY_RUN >>../overlaps
stamp start
trap 'stamp end' EXIT
trap 'exit 143' TERM
"""
"""What every agent does first: it says that it begins, and later that it ends if it still can."""

SCRIPTS = (
    "exit 0",
    "sleep 0.$FACTORY_ATTEMPT; exit 0",
    "exit 1",
    "[ $FACTORY_ATTEMPT = 2 ] || exit 1",
    "[ -e ../once-$FACTORY_ISSUE ] && exit 0; touch ../once-$FACTORY_ISSUE; exit 75",
    "[ -e ../once-$FACTORY_ISSUE ] && exit 0; touch ../once-$FACTORY_ISSUE; exit 3",
    "setsid sleep 600 9>&- & exit 0",
    "sleep 600 & wait",
    "for n in 1 2 3 4 5; do sleep 0.2 & wait $!; done; exit 0",
    "trap '' TERM; while :; do sleep 0.5; done",
    "(trap '' TERM; sleep 600) & sleep 0.3; exit 1",
)


class Chaos(Soak):
    """Submits, kills by issue and by agent, and has agents and daemons die, as chance will."""

    def __init__(self, place: Place, seed: int) -> None:
        super().__init__(place, seed)
        self.did = Counter[str]()
        self.moved = set[str]()

    async def one_step(self) -> None:
        """Do one thing; a daemon that is killed meanwhile is started again by who killed it."""
        steps = (
            (0.30, "put", self.put),
            (0.42, "kill issues", lambda: self.kill_some(wait=self.random.random() < 0.5)),
            (0.50, "kill an agent's issue", self.kill_by_agent),
            (0.58, "release", self.release),
            (0.63, "put away", self.put_away),
            (0.69, "retry", self.retry),
            (0.82, "kill -9 an agent", self.end_an_agent),
            (0.86, "kill -9 the daemon", self.die),
            (0.88, "stop the daemon", self.stop_and_start),
            (1.00, "wait", self.wait),
        )
        choice = self.choices.random()
        _, name, act = next(step for step in steps if choice < step[0])
        self.did[name] += 1
        await act()

    def is_poor(self) -> bool:
        """Say whether too little has happened, for which a slow machine needs more time."""
        return LASTS_S >= 60 and (len(self.keys) <= 50 or self.deaths <= 5)

    async def wait(self) -> None:
        """Let things go on for a moment."""
        await trio.sleep(self.random.random() * 0.5)

    @override
    async def put(self) -> None:
        """Put some issues, unless there are many."""
        if len(await self.in_flight()) < 12:
            for _ in range(self.random.randint(1, 4)):
                self.keys.append(f"A-{len(self.keys) + 1}")
                self.place.put(self.keys[-1], STAMP + self.random.choice(SCRIPTS))

    async def kill_by_agent(self) -> None:
        """Kill an issue by the name of its agent, twice at once."""
        agents = await self.agents()
        if not agents:
            return
        name = self.random.choice(agents)["name"]

        async def kill() -> None:
            with suppress(CallFailed):  # it has ended meanwhile
                await self.running.call("Kill", targets=[name], now=self.random.random() < 0.3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            nursery.start_soon(kill)

    async def release(self) -> None:
        """Release an issue, now and then while it is being killed."""
        flying = await self.in_flight()
        if not flying:
            return
        key = self.random.choice(flying)
        kill_too = self.random.random() < 0.4

        async def end(method: str, **parameters: object) -> None:
            with suppress(CallFailed):  # it has ended meanwhile
                await self.running.call(method, **parameters)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(end, "Release", target=key))
            if kill_too:
                nursery.start_soon(partial(end, "Kill", targets=[key]))

    async def put_away(self) -> None:
        """Move the file of an issue that is worked on, as a person does who ended it elsewhere."""
        flying = await self.in_flight()
        if flying:
            name, issues = f"{self.random.choice(flying)}.md", self.place.root / "issues"
            directory = self.random.choice(["done", "done", "failed", "cancelled"])
            with suppress(FileNotFoundError):  # it has ended meanwhile
                (issues / "active" / name).rename(issues / directory / name)
                self.moved.add(name.removesuffix(".md"))

    async def retry(self) -> None:
        """Bring an issue back that has ended, unless many are worked on."""
        shown = (await self.running.status())["issues"]
        ended = [one["key"] for one in shown if one["state"] in TERMINAL]
        if ended and len(await self.in_flight()) < 12:
            key = self.random.choice(ended)
            with suppress(CallFailed):  # somebody else was first
                await self.running.call("Retry", target=key)

    async def end_an_agent(self) -> None:
        """Send SIGKILL to the root of an agent's tree, if it is still what status says."""
        agents = [one for one in await self.agents() if one["pid"]]
        if not agents:
            return
        agent = self.random.choice(agents)
        identity = identify(agent["pid"])
        if identity is None or agent["run"] not in read_argv(agent["pid"]):
            return
        process = open_verified(identity)
        if isinstance(process, PidFd):
            with process, suppress(OSError):
                process.send(SIGKILL)

    async def stop_and_start(self) -> None:
        """Stop the daemon in good order, and start the next."""
        assert await self.running.stop() == 0, self.place.log[-5000:]
        await self.start()

    async def agents(self) -> list[dict[str, Any]]:
        """Return the agents of issues that are worked on now."""
        issues = (await self.running.status())["issues"]
        return [a for one in issues if one["state"] in IN_FLIGHT for a in one["agents"]]


async def test_whatever_happens_every_issue_has_one_outcome_and_no_attempt_overlaps_another():
    print(f"CHAOS_SEED={SEED} CHAOS_SECONDS={LASTS_S:g}")  # noqa: T201  to have it again
    with a_place(**SECTIONS) as place:
        chaos = Chaos(place, SEED)
        until = time.monotonic() + LASTS_S
        try:
            await chaos.start()
            while (now := time.monotonic()) < until or (chaos.is_poor() and now < until + LASTS_S):
                await chaos.one_step()
            await chaos.settle()
            assert await chaos.running.stop() == 0
        finally:
            await chaos.end()
            print(len(chaos.keys), "issues,", chaos.deaths, "deaths,", dict(chaos.did))  # noqa: T201
        assert place.survivors() == []
        assert not place.cgroup.exists()
        check_ledger(place, chaos.keys)
        check_outcomes(place, chaos.keys, chaos.moved)
        check_stamps(place)
        assert not chaos.is_poor()


def check_outcomes(place: Place, keys: list[str], moved: set[str]) -> None:
    """Look where every file lies: in one directory, with one outcome that says the same.

    One that a person has moved while its issue was being ended may lie elsewhere.
    """
    ends = {"done": "done", "parked": "failed", "cancelled": "cancelled"}
    for key in keys:
        (file,) = place.root.glob(f"issues/*/{key}.md")
        (outcome,) = place.root.glob(f"issues/*/{key}.*outcome.json")
        state = json.loads(outcome.read_text())["state"]
        assert outcome.parent.name == ends[state]
        assert file.parent == outcome.parent or key in moved
    seen = Counter(path.parent.name for path in Path(place.root, "issues").glob("*/*.md"))
    assert len(keys) == seen.total()


def read_reopened(place: Place) -> Counter[str]:
    """Return how often each issue was brought back."""
    store = SqliteStore(place.state / "ledger.sqlite", read_only=True)
    try:
        facts = [one.fact for one in store.read_facts(0, 1_000_000, None)]
    finally:
        store.close()
    return Counter(one.issue for one in facts if isinstance(one, IssueReopened))


def check_stamps(place: Place) -> None:
    """Read what agents wrote when they began and ended: attempts of an issue never interleave."""
    stamps = [line.split() for line in (place.root / "stamps").read_text().splitlines()]
    assert len([one for one in stamps if one[0] == "start"]) > 1
    reopened = read_reopened(place)
    by_issue: dict[str, list[list[str]]] = {}
    for stamp in stamps:
        by_issue.setdefault(stamp[1], []).append(stamp)
    for key, mine in by_issue.items():
        order = list(dict.fromkeys(run for *_, run in mine))
        begun = [run for what, *_, run in mine if what == "start"]
        assert begun == order, f"{key}: a run began twice, or ended before it began: {mine}"
        attempts = [int(attempt) for what, _, attempt, *_ in mine if what == "start"]
        anew = [after for before, after in pairwise(attempts) if after < before]
        assert anew == [1] * len(anew), f"{key}: {mine}"
        assert len(anew) <= reopened[key], f"{key}: {mine}"
        current = [run for *_, run in mine]
        assert current == sorted(current, key=order.index), f"{key}: runs overlap: {mine}"
