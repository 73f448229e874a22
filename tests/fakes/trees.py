"""Process trees without processes: each run plays the part that its `Program` is."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio
from msgspec.structs import replace

from factoryd.core.errors import CannotStart
from factoryd.core.model import (
    Command,
    Containment,
    Exit,
    ProcessIdentity,
    RunId,
    Signalled,
    Skipped,
    StopPolicy,
    StopPreview,
    StopReport,
    TreePlace,
    Usage,
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a started command does.

    With a `status` it ends by itself after `after_s`; without one it runs until it is stopped.
    `children` stay behind when the root ends by itself.
    """

    status: int | None = None
    after_s: float = 0.0
    ignores_terminate: bool = False
    terminated_status: int = 143
    children: int = 0
    cannot_start: str | None = None
    survivors: tuple[Skipped, ...] = ()
    """Processes that cannot be ended, with the reason the report gives; None left: emptied."""
    usage: Usage = field(default_factory=lambda: Usage(processes=1, cpu_s=0.5, memory_bytes=4096))


class Life:
    """One run, as the kernel would know it: shared by all who look at it."""

    def __init__(self, place: TreePlace, command: Command, program: Program, pid: int) -> None:
        self.place = replace(place, cgroup_inode=pid)
        self.command = command
        self.program = program
        self.identity = ProcessIdentity(pid=pid, start_ticks=pid, boot_id="fake")
        self.began = trio.current_time()
        self.exit: Exit | None = None
        self.exited = trio.Event()
        self.emptied = trio.Event()
        self.left = 1 + program.children
        self.signals: list[str] = []
        self.signalled = 0
        self.frozen_at: float | None = None
        self.thawed = trio.Event()
        self.sent: dict[int, list[str]] = {}
        self.policy: StopPolicy | None = None
        """How it was stopped last."""
        self.stopped = False
        """Whether it was signalled before its root ended."""

    def freeze(self) -> None:
        """Stop the clock of whatever it does by itself."""
        if self.frozen_at is None:
            self.frozen_at = trio.current_time()
            self.thawed = trio.Event()

    def thaw(self) -> None:
        """Let it go on from where it was."""
        if self.frozen_at is not None:
            self.began += trio.current_time() - self.frozen_at
            self.frozen_at = None
            self.thawed.set()

    def signal(self, name: str) -> None:
        """Note a signal to whoever is left, the root last."""
        if not self.left:
            return
        self.stopped = self.stopped or self.exit is None
        self.signals.append(name)
        self.signalled = max(self.signalled, self.left)
        root = self.identity.pid
        children = [root * 100 + n for n in range(self.left - (self.exit is None))]
        for pid in [*children, *([root] if self.exit is None else [])]:
            names = self.sent.setdefault(pid, [])
            names += [name] if name not in names else []

    @property
    def frozen(self) -> bool:
        """Say whether it stands still."""
        return self.frozen_at is not None

    @property
    def ends_at(self) -> float:
        """Return when it ends by itself, pauses counted in."""
        return self.began + self.program.after_s

    def end(self, status: int | None, *, children_too: bool = False) -> None:
        """End the root; the first end counts."""
        self.thaw()
        if self.exit is None:
            self.exit = Exit(status=status, reason=None if status is not None else "lost")
            self.exited.set()
            self.left -= 1
        if children_too or self.left == 0:
            self.left = 0
            self.emptied.set()


class World:
    """All runs there are; give one to several `FakeTrees` and they see the same processes."""

    def __init__(self) -> None:
        self.lives: dict[RunId, Life] = {}
        self.pids = itertools.count(1_000_001)


class FakeTree:
    """See `ports.Tree`."""

    def __init__(
        self,
        place: TreePlace,
        life: Life | None,
        fault: str | None = None,
        *,
        adopted: bool = False,
    ) -> None:
        self._adopted = adopted
        self._place = place if life is None else life.place
        self._life = life
        self._fault = fault
        self._began: float | None = None
        self.closed = False

    @property
    def place(self) -> TreePlace:
        return self._place

    @property
    def identity(self) -> ProcessIdentity | None:
        return self._life.identity if self._life is not None else None

    async def wait_exit(self) -> Exit:
        life = self._life
        if life is None:
            await trio.lowlevel.checkpoint()
            return Exit(status=None, reason=self._fault or "it never began")
        if self._adopted and life.stopped:
            await trio.lowlevel.checkpoint()
            return Exit(status=None, reason="its stop was begun before", stopped=True)
        while life.exit is None and life.program.status is not None:
            with trio.move_on_at(life.ends_at) as scope:
                await life.exited.wait()
            if scope.cancelled_caught and life.frozen_at is not None:
                await life.thawed.wait()
            elif scope.cancelled_caught and trio.current_time() >= life.ends_at:
                life.end(life.program.status)
        await life.exited.wait()
        assert life.exit is not None
        return life.exit

    async def freeze(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._life is not None:
            self._life.freeze()

    async def thaw(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._life is not None:
            self._life.thaw()

    async def terminate(self, policy: StopPolicy) -> None:
        self._began = trio.current_time()
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.cancel_shielded_checkpoint()
        if self._life is None:
            return
        self._life.thaw()
        self._life.signal(policy.signal)
        if not self._life.program.ignores_terminate and not self._life.program.survivors:
            self._life.end(self._life.program.terminated_status, children_too=True)
        await self._life.emptied.wait()

    async def kill(self, policy: StopPolicy) -> StopReport:
        began = self._began if self._began is not None else trio.current_time()
        await trio.lowlevel.checkpoint()
        life = self._life
        if life is None:
            skipped = (Skipped(pid=0, reason=self._fault),) if self._fault else ()
            return StopReport(skipped=skipped, took_s=trio.current_time() - began)
        life.policy = policy
        life.signal("SIGKILL")
        if not life.program.survivors:
            life.end(137, children_too=True)
        return StopReport(
            signals=tuple(dict.fromkeys(life.signals)),
            killed=life.signalled - min(life.left, life.signalled),
            signalled=tuple(
                Signalled(pid=pid, signals=tuple(names)) for pid, names in life.sent.items()
            ),
            skipped=life.program.survivors,
            survivors=len(life.program.survivors),
            emptied=not life.program.survivors,
            took_s=trio.current_time() - began,
        )

    def preview(self, policy: StopPolicy) -> StopPreview:
        if self._life is None or self._life.left == 0:
            return StopPreview()
        pid = self._life.identity.pid
        if pid in policy.protected_pids:
            return StopPreview(skipped=(Skipped(pid=pid, reason="protected"),))
        return StopPreview(pids=(pid,))

    def usage(self) -> Usage:
        if self._life is None:
            return Usage(processes=0, memory_bytes=0)
        if self._life.left == 0:
            return replace(self._life.program.usage, processes=0, memory_bytes=0)
        return self._life.program.usage

    def close(self) -> None:
        self.closed = True


def run_until_stopped(place: TreePlace, command: Command) -> Program:
    """Return the part of a program that runs until it is asked to stop."""
    return Program()


class FakeTrees:
    """See `ports.ProcessTrees`. `play` chooses the part of each command that is started."""

    def __init__(
        self,
        play: Callable[[TreePlace, Command], Program] = run_until_stopped,
        world: World | None = None,
    ) -> None:
        self._play = play
        self.world = world or World()

    @property
    def containment(self) -> Containment:
        return Containment.CGROUP

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset()

    def place(self, issue: str, agent: str, run: RunId, directory: str) -> TreePlace:
        cgroup = f"/fake/agents/{issue}/{run}"
        return TreePlace(run=run, issue=issue, agent=agent, directory=directory, cgroup=cgroup)

    async def start(self, place: TreePlace, command: Command) -> FakeTree:
        await trio.lowlevel.checkpoint()
        program = self._play(place, command)
        if program.cannot_start is not None:
            raise CannotStart(program.cannot_start)
        assert place.run not in self.world.lives, f"run {place.run} was started already"
        life = Life(place, command, program, next(self.world.pids))
        self.world.lives[place.run] = life
        return FakeTree(place, life)

    async def adopt(self, place: TreePlace, identity: ProcessIdentity | None) -> FakeTree:
        await trio.lowlevel.checkpoint()
        life = self.world.lives.get(place.run)
        if life is not None and place.cgroup_inode not in (None, life.place.cgroup_inode):
            return FakeTree(place, None, "leaf identity mismatch")
        return FakeTree(place, life, adopted=True)

    def list_strays(self, known: frozenset[RunId]) -> Sequence[TreePlace]:
        return [life.place for life in self.running() if life.place.run not in known]

    def owns(self, pid: int) -> bool | None:
        return any(life.identity.pid == pid for life in self.running())

    def close(self) -> None:
        """Nothing was made."""

    def running(self) -> Iterable[Life]:
        """Return the runs that have processes, oldest first."""
        return [life for life in self.world.lives.values() if life.left]

    def end(self, run: RunId, status: int) -> None:
        """Have a run's root exit now."""
        self.world.lives[run].end(status)
