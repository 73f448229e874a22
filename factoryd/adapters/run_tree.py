"""One run's tree: waited for, stopped, proven empty; the same for every containment."""

import contextlib
import signal
from typing import Protocol

import trio
from msgspec.structs import replace

from factoryd.adapters.launch import Process, read_end, read_status
from factoryd.adapters.pidfd import reap, verify, wait_ended
from factoryd.adapters.proc import Stat, boot_id, read_stats
from factoryd.adapters.tree_stop import Delivered, Plan, deliver, plan_stop, protection
from factoryd.core.model import (
    Exit,
    ProcessIdentity,
    Skipped,
    StopPolicy,
    StopReport,
    TreePlace,
    Usage,
    Victim,
)

PROOF_BOUND_S = 5.0
"""How long a killed tree may take to be empty; what is left then, the kernel does not let die."""

_SWEEP_PAUSE_S = 0.001

LOOKING = trio.CapacityLimiter(64)
"""Threads that look at processes: apart from trio's others, so that the ledger never waits."""


class Group(Protocol):
    """What keeps the processes of one tree together."""

    def list_members(self) -> dict[int, Stat]:
        """Return every process in it that has not ended; `OSError` when that cannot be told."""
        ...

    def holds(self, pid: int) -> bool:
        """Say again, right before a signal, whether the process is in it."""
        ...

    async def freeze(self) -> None:
        """Stop every process in it; return once all stand still."""
        ...

    def thaw(self) -> None:
        """Let its processes go on, and so act on signals; nothing to do where nothing is frozen."""
        ...

    def kill(self) -> bool:
        """Have all of it killed at once; False where that is not possible."""
        ...

    async def wait_empty(self) -> None:
        """Return once nothing is alive in it."""
        ...

    def remove(self) -> Usage:
        """Give it up and return what it used in all; `OSError` when something lives in it."""
        ...

    def find_victims(self) -> tuple[Victim, ...]:
        """Return whom the kernel killed in it, as its log says; `OSError` when that is hidden."""
        ...

    def measure(self) -> Usage:
        """Return what its processes use."""
        ...


class RunTree:
    """A tree, ours by birth (then `process` is its root) or taken over. See `ports.Tree`."""

    def __init__(
        self,
        place: TreePlace,
        group: Group,
        identity: ProcessIdentity | None,
        process: Process | None = None,
    ) -> None:
        self._place = place
        self._group = group
        self._identity = identity
        self._process = process
        self._exit: Exit | None = None
        self._last_usage: Usage | None = None
        self._began: float | None = None
        self._signals: list[str] = []
        self._reached: dict[ProcessIdentity, signal.Signals] = {}
        self._skipped: dict[int, str] = {}

    @property
    def place(self) -> TreePlace:
        """Return where the tree lives."""
        return self._place

    @property
    def identity(self) -> ProcessIdentity | None:
        """Return the shim's identity; None when it was never started or is forgotten."""
        return self._identity

    async def wait_exit(self) -> Exit:
        """Return how the shim ended, as soon as it has."""
        await self._wait_root()
        if self._exit is None:
            self._exit = read_status(self._place) or self._guess_exit()
        return self._exit

    async def _wait_root(self) -> None:
        if self._identity is None:
            await trio.lowlevel.checkpoint()
            return
        await wait_ended(self._identity)
        if self._process is not None:
            self._process.poll()
        else:  # a child all the same, where this process was the daemon before
            reap(self._identity)

    def _guess_exit(self) -> Exit:
        """Return what is known without a status file."""
        if self._process is not None:
            code = self._process.wait()
            return Exit(status=code if code >= 0 else 128 - code)
        if self._identity is None:
            return Exit(status=None, reason="it never began, or its first process left no status")
        if self._identity.boot_id != boot_id():
            return Exit(status=None, reason="lost in reboot")
        return Exit(status=None, reason="its first process ended without leaving a status")

    async def freeze(self) -> None:
        """Stop every process of the tree where it is; return once all of them stand still."""
        await self._group.freeze()

    async def thaw(self) -> None:
        """Let the processes go on."""
        await trio.to_thread.run_sync(self._group.thaw, limiter=LOOKING)

    async def terminate(self, policy: StopPolicy) -> None:
        """Send the stop signal once to all that may be signalled; return when the tree is empty."""
        self._began = self._began or trio.current_time()
        number = signal.Signals[policy.signal]
        plan = await self._plan(policy)
        if plan is not None:
            await self._deliver(plan, number)
        self._group.thaw()
        await self._wait_empty()

    async def kill(self, policy: StopPolicy) -> StopReport:
        """Kill what is left, prove the tree empty within a bound, report on the whole stop."""
        began = self._began = self._began or trio.current_time()
        emptied = False
        with trio.move_on_after(PROOF_BOUND_S):
            emptied = await self._empty(policy)
        survivors = (
            0 if emptied else await trio.to_thread.run_sync(self._count_survivors, limiter=LOOKING)
        )
        return StopReport(
            signals=tuple(self._signals),
            killed=len(self._reached if emptied else self._list_ended()),
            skipped=tuple(
                Skipped(pid=pid, reason=reason) for pid, reason in sorted(self._skipped.items())
            ),
            survivors=survivors,
            emptied=emptied,
            took_s=trio.current_time() - began,
        )

    async def _empty(self, policy: StopPolicy) -> bool:
        """Return True with the proof that nothing is left, False when something must be left."""
        while True:
            plan = await self._plan(policy)
            if plan is None or (plan.skipped and not plan.targets):
                return False
            if not plan.targets or (not plan.skipped and self._kill_at_once(plan)):
                await self._wait_empty()
                if self._try_remove():
                    return True
            else:
                await self._deliver(plan, signal.SIGKILL)
            await trio.sleep(_SWEEP_PAUSE_S)

    def _kill_at_once(self, plan: Plan) -> bool:
        # A shim that has not entered yet must not do so later: it dies first, and by itself.
        late = tuple(stat for stat in plan.targets if self._is_root(stat.pid))
        if late and not self._group.holds(late[0].pid):
            self._note(signal.SIGKILL, deliver(late, signal.SIGKILL, self._is_root))
        if not self._group.kill():
            return False
        self._note(signal.SIGKILL, Delivered(reached=tuple(stat.identity for stat in plan.targets)))
        return True

    def _try_remove(self) -> bool:
        try:
            spent = self._group.remove()
        except OSError as error:
            self._skipped[0] = f"the leaf cannot be removed: {error.strerror}"
            return False
        self._skipped.pop(0, None)
        self._last_usage = self._last_usage or replace(spent, ended_at=read_end(self._place))
        return True

    def _list_ended(self) -> list[ProcessIdentity]:
        return [identity for identity in self._reached if verify(identity) is not None]

    def _count_survivors(self) -> int:
        """Return how many are left, each with a reason; at least one when nobody can tell."""
        try:
            left = self._list_members()
        except OSError:
            return 1
        for pid, stat in left.items():
            if stat.state == "D":
                reason = "uninterruptible sleep"
            elif self._reached.get(stat.identity) is signal.SIGKILL:
                reason = "alive after SIGKILL"
            else:
                reason = f"not reached within {PROOF_BOUND_S:g} s"
            self._skipped.setdefault(pid, reason)
        if not left:
            self._skipped.setdefault(0, f"not proven empty within {PROOF_BOUND_S:g} s")
        return max(1, len(left))

    async def _wait_empty(self) -> None:
        await self._wait_root()
        await self._group.wait_empty()

    async def _plan(self, policy: StopPolicy) -> Plan | None:
        """Return whom to signal now; None, and the reason in the report, when nobody can tell."""
        try:
            plan = await trio.to_thread.run_sync(self._make_plan, policy, limiter=LOOKING)
        except OSError as error:
            pid = self._identity.pid if self._identity is not None else 0
            self._skipped[pid] = f"the processes of the tree cannot be listed: {error.strerror}"
            return None
        self._skip(plan.skipped)
        return plan

    def _make_plan(self, policy: StopPolicy) -> Plan:
        members = self._list_members()
        root = next(
            (stat.pid for stat in members.values() if stat.identity == self._identity), None
        )
        return plan_stop(members, root, policy.order, protection(policy, root))

    def _list_members(self) -> dict[int, Stat]:
        members = self._group.list_members()
        # Right after the start the shim may not have entered its cgroup yet.
        if self._identity is not None and verify(self._identity) is None:
            members |= read_stats([self._identity.pid])
        return members

    def _is_root(self, pid: int) -> bool:
        return self._identity is not None and pid == self._identity.pid

    def _holds(self, pid: int) -> bool:
        return self._is_root(pid) or self._group.holds(pid)

    async def _deliver(self, plan: Plan, number: signal.Signals) -> None:
        done = await trio.to_thread.run_sync(
            deliver, plan.targets, number, self._holds, limiter=LOOKING
        )
        self._note(number, done)

    def _note(self, number: signal.Signals, done: Delivered) -> None:
        if done.reached and number.name not in self._signals:
            self._signals.append(number.name)
        self._reached.update(dict.fromkeys(done.reached, number))
        self._skip(done.skipped)

    def _skip(self, skipped: tuple[Skipped, ...]) -> None:
        self._skipped.update({skip.pid: skip.reason for skip in skipped})

    def usage(self) -> Usage:
        """Return what the tree uses now, or used in all. Blocks for reads of /proc and the log."""
        if self._last_usage is not None:
            self._last_usage = self._look_for_victims(self._last_usage)
            return self._last_usage
        with contextlib.suppress(OSError):
            return self._group.measure()
        return Usage()

    def _look_for_victims(self, usage: Usage) -> Usage:
        lack = usage.out_of_memory
        if lack is None or lack.victims or lack.untold:
            return usage
        try:
            victims, untold = self._group.find_victims(), "the kernel log does not name it"
        except OSError as error:
            victims, untold = (), f"the kernel log cannot be read: {error.strerror}"
        lack = replace(lack, victims=victims, untold=None if victims else untold)
        return replace(usage, out_of_memory=lack)

    def close(self) -> None:
        """Release nothing: descriptors are held only while something is waited for."""
