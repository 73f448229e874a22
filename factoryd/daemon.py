"""The daemon: builds every part once, opens the nurseries, and closes them in order."""

import gc
import hashlib
import logging
import os
import resource
import signal
from contextlib import ExitStack
from pathlib import Path

import trio

from factoryd import __version__
from factoryd.adapters.accounts import SystemAccounts
from factoryd.adapters.agents.command import CommandKind
from factoryd.adapters.clock import SystemClock
from factoryd.adapters.config_file import load_config
from factoryd.adapters.desk import StateDesk
from factoryd.adapters.directories import Directories, make_directories
from factoryd.adapters.faults import FaultyStore, read_fault
from factoryd.adapters.forwarding import JournalSink, SilentSink, SwitchedSink, keep_up
from factoryd.adapters.heartbeat_file import AtomicHeartbeatFile
from factoryd.adapters.inotify import Watches
from factoryd.adapters.journald import Journal
from factoryd.adapters.listening import open_control_socket
from factoryd.adapters.lock import InstanceLock
from factoryd.adapters.output import Follower
from factoryd.adapters.pidfd import identify
from factoryd.adapters.process_tree import choose
from factoryd.adapters.sources.folder import FolderSource
from factoryd.adapters.sqlite_store import LEDGER, SqliteStore, read_registry
from factoryd.adapters.systemd import SystemdNotifier
from factoryd.adapters.workspace import LocalWorkspaces
from factoryd.core.config import Config, SourceConfig
from factoryd.core.errors import (
    KEEP_AGENTS_STATUS,
    FactoryError,
    LedgerUnavailable,
    SourceFailed,
)
from factoryd.core.events import ConfigurationLoaded, DaemonStarted, DaemonStopped
from factoryd.core.model import Data, IssueState
from factoryd.core.registry import Registry
from factoryd.flow.agent_runner import AgentRunner
from factoryd.flow.announcing import Announcer
from factoryd.flow.control import ControlServer
from factoryd.flow.ledger import Ledger
from factoryd.flow.methods import Methods
from factoryd.flow.preview import preview
from factoryd.flow.pulse import Pulse, Pulses
from factoryd.flow.recovery import Reaper
from factoryd.flow.reloading import Reloader
from factoryd.flow.retention import Retention
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.settings import Settings
from factoryd.flow.shop import Shop
from factoryd.flow.slots import Slots
from factoryd.flow.sources import Sources
from factoryd.flow.stopping import stop_policy
from factoryd.flow.views import Birth, Overview
from factoryd.ports import IssueSource, ProcessTrees

logger = logging.getLogger(__name__)

MAX_BUSY_S = 30.0
"""How long a part of the daemon may be at one thing before it counts as stuck."""

PREPARE_S = 5.0
"""How long a source may take to make its directories before it is followed without them."""

THREADS = 4
"""Blocking calls at once: all are short, and more threads than that only wait for one another."""


class Plan(Data, frozen=True, kw_only=True):
    """What a daemon is started with, its configuration read from `file`.

    `drain_after`: see `Scheduler.run`; None: serve for ever.
    """

    config: Config
    file: Path
    directories: Directories
    drain_after: int | None = None


def tree_root_name(state: Path) -> str:
    """Return the name of our process trees: one per state directory, the same after a restart."""
    return hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:8]


async def serve(plan: Plan, journal: Journal | None) -> int:
    """Run a daemon until it is told to stop or has nothing left to do; return its exit status.

    When this returns, no agent runs any more, or a handoff says which and why (and the status is
    1), or agents were left running for the next daemon (and it is `KEEP_AGENTS_STATUS`). Raises a `FactoryError` when the daemon cannot start.
    """
    fault = read_fault(os.environ)
    with ExitStack() as held:
        make_directories(plan.directories)
        for directory in {plan.directories.state.resolve(), plan.directories.runtime.resolve()}:
            held.callback(InstanceLock(directory / "lock").close)
        raise_descriptor_limit()
        spare_the_collector()
        trio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        store = SqliteStore(plan.directories.state / LEDGER)
        held.callback(store.close)
        registry = Registry.replay(*store.load())
        trees = choose(tree_root_name(plan.directories.state), plan.config.factory.containment)
        held.callback(trees.close)
        listener = open_control_socket(plan.directories.runtime / "control.sock", os.environ)
        held.callback(listener.socket.close)
        kept = store if fault is None else FaultyStore(store, fault)
        ledger = Ledger(kept, registry, SystemClock())
        return await Daemon(plan, ledger, trees, journal).run(listener)


async def dry_run(plan: Plan) -> list[str]:
    """Return what a daemon would do now, a line each; nothing is created, changed or locked."""
    watches = Watches()
    sources = [make_source(one, watches) for one in plan.config.sources]
    registry = await trio.to_thread.run_sync(read_registry, plan.directories.state)
    try:
        return await preview(sources, registry, plan.config, SystemClock().now())
    finally:
        for source in sources:
            source.close()
        watches.close()


def make_source(one: SourceConfig, watches: Watches) -> FolderSource:
    """Return a source as it is configured."""
    return FolderSource(one.name or one.path, Path(one.path), watches, SystemClock())


class Daemon:
    """All parts of one daemon, connected."""

    def __init__(
        self, plan: Plan, ledger: Ledger, trees: ProcessTrees, journal: Journal | None
    ) -> None:
        config, clock = plan.config, SystemClock()
        identity = identify(os.getpid())
        assert identity is not None
        running = [i for i in ledger.registry.issues.values() if i.state is IssueState.RUNNING]
        self._plan = plan
        self._settings = settings = Settings(config)
        self._ledger = ledger
        self._identity = identity
        self._started_at = clock.now()
        self._watches = Watches()
        self._notifier = SystemdNotifier()
        self._work = trio.CancelScope()
        self._stop_asked = trio.Event()
        self._keep_agents = False
        self._pulses = Pulses(
            settings=settings,
            identity=identity,
            file=AtomicHeartbeatFile(plan.directories.runtime / "heartbeat"),
            notifier=self._notifier,
            clock=clock,
        )
        desk = StateDesk(plan.directories.state)
        self._journal = journal
        self._sink: JournalSink | SilentSink = SilentSink()
        if journal is not None:
            self._sink = JournalSink(journal, lambda: settings.config.output.journal_rate)
        runner = AgentRunner(
            ledger=ledger,
            trees=trees,
            kinds={"command": CommandKind(os.environ)},
            follower=Follower(
                self._watches,
                SwitchedSink(self._sink, lambda: settings.config.output.journal),
                lambda: settings.config.output,
            ),
            desk=desk,
            clock=clock,
        )
        self._sources = Sources(settings, ledger, self._pulses)
        shop = Shop(
            settings=settings,
            ledger=ledger,
            runner=runner,
            sources=self._sources,
            workspaces=LocalWorkspaces(
                lambda: settings.config.repos, plan.directories.state, os.environ
            ),
            desk=desk,
            clock=clock,
            slots=Slots(config.factory.slots, taken=len(running)),
            socket=str(plan.directories.runtime / "control.sock"),
        )
        self._scheduler = Scheduler(shop, self._recording_pulse("scheduler"))
        self._reaper = Reaper(settings, ledger, trees, self._pulse("reaper"))
        self._retention = Retention(settings, ledger, desk, clock)
        birth = Birth(
            pid=identity.pid,
            version=__version__,
            started_at=self._started_at,
            adopted_runs=sum(len(issue.live_runs) for issue in running),
            containment=trees.containment,
            controllers=tuple(sorted(trees.controllers)),
        )
        self._overview = Overview(birth, shop, self._scheduler, self._pulses)
        self._announcer = Announcer(self._notifier, self._overview, self._pulses, ledger, settings)
        self._reloader = Reloader(
            shop,
            self._scheduler,
            self._notifier,
            lambda: load_config(plan.file).config,
            self._make_source,
            file=str(plan.file),
        )
        self._control = ControlServer(
            methods=Methods(
                shop, self._scheduler, self._overview, self.stop, self._reaper, self._reloader
            ),
            access=lambda: settings.config.access,
            accounts=SystemAccounts(),
            trees=trees,
            pulse=self._recording_pulse("control"),
        )

    def stop(self, reason: str, *, keep_agents: bool = False) -> None:
        """Begin to stop; asked again, skip what is left of the grace.

        With `keep_agents` leave the agents to the next daemon, unless asked again without. Raises
        `FactoryError` when that is asked for too late.
        """
        kept, stopping = self._keep_agents, self._stop_asked.is_set()
        if keep_agents and stopping:
            raise FactoryError("factoryd is stopping already: wait until it has, then start it")
        self._keep_agents = keep_agents
        self._reloader.closed = True
        self._scheduler.keep_agents(keep=keep_agents)
        if not stopping:
            logger.info("stopping%s: %s", ", agents go on" if keep_agents else "", reason)
            self._stop_asked.set()
        elif not kept:
            logger.info("stopping at once: %s", reason)
            self._scheduler.hurry()
        else:
            logger.info("stopping, agents and all: %s", reason)

    async def run(self, listener: trio.SocketListener) -> int:
        """Recover, serve, and stop; return the exit status."""
        async with trio.open_nursery() as services:
            await services.start(self._ledger.run)
            await services.start(self._watches.run)
            await services.start(self._pulses.run)
            services.start_soon(self._announcer.run)
            services.start_soon(self._hear_signals)
            services.start_soon(self._wait_for_stop)
            if self._journal is not None:
                services.start_soon(keep_up, self._journal, self._sink)
            try:
                await self._begin(services, listener)
                with self._work:
                    await self._scheduler.run(drain_after=self._plan.drain_after)
            except* LedgerUnavailable:
                logger.debug("the ledger gave up while work was being stopped", exc_info=True)
            await self._pulses.become("stopping")
            status = await self._close()
            services.cancel_scope.cancel(reason="stopped")
        return status

    async def _begin(self, services: trio.Nursery, listener: trio.SocketListener) -> None:
        """Recover and begin to serve; whoever is told to stop meanwhile is never ready."""
        await self._ledger.record(
            DaemonStarted(
                pid=self._identity.pid, version=__version__, boot_id=self._identity.boot_id
            ),
            ConfigurationLoaded(
                stop=stop_policy(self._plan.config.stop, self._plan.config.protect),
                grace_s=self._plan.config.stop.grace,
            ),
        )
        await self._reaper.empty_strays()
        for one in self._settings.config.sources:
            self._sources.add(await self._make_source(one))
        services.start_soon(self._reaper.run)
        services.start_soon(self._retention.run)
        await services.start(self._control.serve, listener)
        if self._stop_asked.is_set():
            return
        await self._pulses.become("running")
        self._notifier.status(self._overview.headline())
        self._notifier.ready()
        services.start_soon(self._reloader.run)

    async def _make_source(self, config: SourceConfig) -> IssueSource:
        source = make_source(config, self._watches)
        try:
            with trio.fail_after(PREPARE_S):
                await source.make_directories()
        except (SourceFailed, trio.TooSlowError) as error:
            reason = str(error) or f"its directories could not be made within {PREPARE_S:g} s"
            logger.warning("source %s is not ready: %s", source.name, reason)
        return source

    async def _close(self) -> int:
        keep, clean = self._keep_agents, None
        try:
            if not keep:
                await self._scheduler.empty_leftovers()
            clean = not self._ledger.registry.handoffs
            await self._ledger.record(DaemonStopped(clean=clean, kept=self._count_kept()))
            await self._ledger.snapshot()
        except* LedgerUnavailable:
            logger.error("the last facts could not be written: %s", self._ledger.trouble)  # noqa: TRY400  for a person
            clean = None
        if keep and self._keep_agents:
            await self._pulses.end()
        if keep and self._keep_agents:
            return KEEP_AGENTS_STATUS
        if keep:  # meanwhile somebody wants them to end after all
            await self._pulses.become("stopping")
            return await self._close()
        if clean is None:
            return 1
        if not clean:
            logger.error("survivors are left; they are handed to the next daemon")
            return 1
        await self._pulses.end()
        return 1 if self._drained() and self._left_for_people() else 0

    def _count_kept(self) -> int:
        return sum(len(one.live_runs) for one in self._ledger.registry.issues.values())

    def _drained(self) -> bool:
        return self._plan.drain_after is not None and not self._stop_asked.is_set()

    def _left_for_people(self) -> bool:
        if any(one.trouble for one in self._sources.followers) or self._sources.unfinished():
            return True
        return any(
            issue.state in {IssueState.PARKED, IssueState.ESCALATED}
            for issue in self._ledger.registry.issues.values()
            if issue.since >= self._started_at
        )

    async def _wait_for_stop(self) -> None:
        await self._stop_asked.wait()
        self._notifier.stopping()
        await self._pulses.become("stopping")
        self._ledger.give_up()
        self._work.cancel(reason="the daemon is stopping")

    async def _hear_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
            async for number in received:
                if number == signal.SIGHUP:
                    self._reloader.ask()
                else:
                    self.stop(signal.Signals(number).name)

    def _pulse(self, name: str) -> Pulse:
        return self._pulses.declare(name, MAX_BUSY_S)

    def _recording_pulse(self, name: str) -> Pulse:
        """Declare a part that records facts, and waits while the disk takes none."""
        return self._pulses.declare(name, MAX_BUSY_S, lambda: self._ledger.refused_at)


def spare_the_collector() -> None:
    """Leave what is loaded now out of garbage collections, and hold those less often.

    A daemon makes few cycles and many short-lived objects, which need no collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


def raise_descriptor_limit() -> None:
    """Allow many open files: every run needs a few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
