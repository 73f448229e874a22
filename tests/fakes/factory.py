"""A whole factory on fakes: the flow as the daemon connects it, over a world that outlives it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from factoryd.core.config import Config, SourceConfig
from factoryd.core.events import AnyFact, kind_of
from factoryd.core.model import Command, Exit, Issue, IssueState, TreePlace
from factoryd.core.records import IssueRecord
from factoryd.core.registry import Registry
from factoryd.flow.agent_runner import AgentRunner
from factoryd.flow.ledger import Ledger
from factoryd.flow.pulse import Pulse
from factoryd.flow.recovery import Reaper
from factoryd.flow.reloading import Reloader
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.settings import Settings
from factoryd.flow.shop import Shop
from factoryd.flow.slots import Slots
from factoryd.flow.sources import Sources
from factoryd.ports import IssueSource
from tests.fakes.clock import TrioClock
from tests.fakes.desk import FakeDesk
from tests.fakes.follower import FakeFollower
from tests.fakes.kinds import FakeKind
from tests.fakes.ledger_store import FakeStore
from tests.fakes.notifier import FakeNotifier
from tests.fakes.source import FakeSource
from tests.fakes.trees import FakeTrees, Life, Program, World
from tests.fakes.workspaces import FakeWorkspaces

F = TypeVar("F", bound=AnyFact)

RUNNING = frozenset({IssueState.RUNNING})


class Script:
    """Which part each run of an agent plays: its programs in turn, the last one for ever.

    An agent without programs is done at once.
    """

    def __init__(self) -> None:
        self.parts: dict[str, list[Program]] = {}
        self.started: list[str] = []
        self.moments: list[float] = []

    def __call__(self, place: TreePlace, command: Command) -> Program:
        turn = self.started.count(place.agent)
        self.started.append(place.agent)
        self.moments.append(trio.current_time())
        programs = self.parts.get(place.agent, [Program(status=0)])
        return programs[min(turn, len(programs) - 1)]


class PulseList:
    """The pulses of sources."""

    def __init__(self) -> None:
        self.pulses: list[Pulse] = []

    def declare(self, name: str, max_silence_s: float) -> Pulse:
        self.pulses.append(Pulse(name, max_silence_s))
        return self.pulses[-1]

    def forget(self, pulse: Pulse) -> None:
        self.pulses.remove(pulse)


class Daemon:
    """The parts of one daemon's life."""

    def __init__(self, factory: "Factory", config: Config) -> None:
        world = factory.world
        self.follower = FakeFollower()
        self.trees = FakeTrees(factory.script, world)
        registry = Registry.replay(*factory.store.load())
        self.ledger = Ledger(factory.store, registry, factory.clock)
        self.settings = Settings(config)
        self.pulses = PulseList()
        self.notifier = FakeNotifier()
        self.runner = AgentRunner(
            ledger=self.ledger,
            trees=self.trees,
            kinds={"command": factory.kind},
            follower=self.follower,
            desk=factory.desk,
            clock=factory.clock,
        )
        running = sum(one.state in RUNNING for one in registry.issues.values())
        self.sources = Sources(self.settings, self.ledger, self.pulses)
        for source in factory.sources:
            self.sources.add(source)
        self.shop = Shop(
            settings=self.settings,
            ledger=self.ledger,
            runner=self.runner,
            sources=self.sources,
            workspaces=factory.workspaces,
            desk=factory.desk,
            clock=factory.clock,
            slots=Slots(config.factory.slots, taken=running),
            socket="/fake/control.sock",
        )
        self.scheduler = Scheduler(self.shop, Pulse("scheduler", 30.0))
        self.reloader = Reloader(
            self.shop,
            self.scheduler,
            self.notifier,
            factory.read,
            factory.make_source,
            file="factoryd.toml",
        )
        self.reaper = Reaper(self.settings, self.ledger, self.trees, Pulse("reaper", 30.0))
        self.work = trio.CancelScope()
        self.kept = False

    def keep_agents(self) -> None:
        """Stop as for the next daemon: whatever runs goes on."""
        self.kept = True
        self.scheduler.keep_agents(keep=True)
        self.work.cancel(reason="the next daemon goes on")

    async def serve(
        self,
        *,
        drain_after: int | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Live as a daemon does: recover, work until stopped or drained, stop."""
        async with trio.open_nursery() as services:
            await services.start(self.ledger.run)
            await self.reaper.empty_strays()
            services.start_soon(self.reaper.run)
            task_status.started()
            with self.work:
                await self.scheduler.run(drain_after=drain_after)
            if not self.kept:
                await self.scheduler.empty_leftovers()
            services.cancel_scope.cancel(reason="stopped")

    def record(self, key: str) -> IssueRecord:
        """Return what is known of an issue."""
        record = self.ledger.registry.issue(key)
        assert record is not None, f"{key} is unknown"
        return record

    def state(self, key: str) -> IssueState | None:
        """Return where an issue is in its life."""
        record = self.ledger.registry.issue(key)
        return None if record is None else record.state

    async def wait_for(self, true: Callable[[], bool]) -> None:
        """Return once something is true, looking again after every fact."""
        while not true():
            await self.ledger.wait_beyond(self.ledger.registry.seq)

    async def wait_state(self, key: str, state: IssueState) -> None:
        """Return once an issue is in a state."""
        await self.wait_for(lambda: self.state(key) is state)

    async def wait_runs(self, *agents: str) -> None:
        """Return once each of these agents is running."""
        await self.wait_for(lambda: set(agents) <= {run.agent for run in self._running()})
        await trio.testing.wait_all_tasks_blocked()

    def _running(self) -> Iterator[TreePlace]:
        for record in self.ledger.registry.issues.values():
            for run in record.live_runs:
                if run.identity is not None:
                    yield run.place


class Factory:
    """What outlives a daemon: the ledger's file, processes, sources, files; and daemons over it."""

    def __init__(self, config: Config, root: Path) -> None:
        self.config = config
        self.script = Script()
        self.store = FakeStore()
        self.world = World()
        self.clock = TrioClock()
        self.kind = FakeKind()
        self.desk = FakeDesk()
        self.workspaces = FakeWorkspaces(root)
        self.source = FakeSource()
        self.sources = [self.source]
        self.file: Callable[[], Config] = lambda: self.config
        """What a reload reads."""

    def read(self) -> Config:
        """Read the file as it is now."""
        return self.file()

    async def make_source(self, config: SourceConfig) -> IssueSource:
        """Return a new source for a configured one."""
        await trio.lowlevel.checkpoint()
        self.sources.append(FakeSource(config.name))
        return self.sources[-1]

    def put(self, key: str, **fields: object) -> Issue:
        """Make an issue ready in the first source."""
        issue = Issue(key=key, title=f"Mend {key}", labels=("factory",))
        return self.source.put(msgspec.structs.replace(issue, **fields))

    async def drain(self, *, drain_after: int = 0) -> Daemon:
        """Live until nothing is left to do, as `--once` does."""
        daemon = Daemon(self, self.config)
        await daemon.serve(drain_after=drain_after)
        return daemon

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Daemon]:
        """A daemon that lives until the block ends, and is stopped in good order then."""
        daemon = Daemon(self, self.config)
        async with trio.open_nursery() as nursery:
            await nursery.start(daemon.serve)
            yield daemon
            daemon.work.cancel(reason="SIGTERM")

    def kill_daemon(self) -> None:
        """Let the present daemon be dead from now on: what it still does is done to a shadow."""
        self.store, self.world = self.store.copy(), _copy(self.world)

    def facts(self, key: str | None = None) -> list[AnyFact]:
        """Return the facts in the ledger's file, of one issue or all."""
        return [one.fact for one in self.store.read_facts(0, 100_000, key)]

    def story(self, key: str) -> list[str]:
        """Return the kinds of an issue's facts, in order."""
        return [kind_of(fact) for fact in self.facts(key)]

    def of_kind(self, kind: type[F]) -> list[F]:
        """Return the facts of one kind, in order."""
        return [fact for fact in self.facts() if isinstance(fact, kind)]

    def left(self) -> list[str]:
        """Return the agents that have processes."""
        return [life.place.agent for life in self.world.lives.values() if life.left]


def _copy(world: World) -> World:
    """Return a world as it is now, which goes on by itself."""
    other = World()
    other.pids = world.pids
    for run, life in world.lives.items():
        twin = Life(life.place, life.command, life.program, life.identity.pid)
        twin.began, twin.left, twin.frozen_at = life.began, life.left, life.frozen_at
        twin.signals, twin.signalled = list(life.signals), life.signalled
        twin.stopped = life.stopped
        twin.sent = {pid: list(names) for pid, names in life.sent.items()}
        if life.exit is not None:
            twin.exit = Exit(status=life.exit.status, reason=life.exit.reason)
            twin.exited.set()
        if life.left == 0:
            twin.emptied.set()
        other.lives[run] = twin
    return other
