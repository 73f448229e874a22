"""One run's tree: waited for, stopped, proven empty; the same for every containment."""

import contextlib
import signal
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import TypeVar

import trio
from msgspec.structs import replace

from factoryd.adapters.group import Group
from factoryd.adapters.hands import Hands
from factoryd.adapters.launch import Process, note_stop, read_end, read_status, was_stopped
from factoryd.adapters.pidfd import Verdict, reap, verify, wait_ended
from factoryd.adapters.proc import Stat, boot_id, read_stat, read_stats
from factoryd.adapters.tree_stop import Delivered, Plan, Sent, deliver, plan_stop, protection
from factoryd.core.model import (
    Exit,
    ProcessIdentity,
    Signalled,
    Skipped,
    StopPolicy,
    StopPreview,
    StopReport,
    TreePlace,
    Usage,
)

PROOF_BOUND_S = 5.0
"""How long a killed tree may take to be empty; what is left then, the kernel does not let die."""

_SWEEP_PAUSE_S = 0.001
_LOOK_AGAIN_S = 0.05

LOOKING = trio.CapacityLimiter(64)
"""Threads that look at processes: apart from trio's others, so that the ledger never waits."""

_STOPPING = Hands(2)
"""Threads for stops that wait for nobody: of hundreds at once, more would wait for one another."""

T = TypeVar("T")


class _Blow(Enum):
    """Whom a kill has reached."""

    ALL = auto()
    SOME = auto()
    NOBODY = auto()
    """And nobody else will be: the others are protected, or cannot be listed."""


class RunTree:
    """A tree, ours by birth (then `process` is its root) or taken over. See `ports.Tree`.

    `fault` is what was found wrong with its leaf, to be said in its report and, for want of better,
    of its exit.
    """

    def __init__(
        self,
        place: TreePlace,
        group: Group,
        identity: ProcessIdentity | None,
        process: Process | None = None,
        *,
        fault: str | None = None,
    ) -> None:
        self._place = place
        self._group = group
        self._identity = identity
        self._process = process
        self._fault = fault
        self._exit: Exit | None = None
        self._witnessed: int | None = None
        self._last_usage: Usage | None = None
        self._began: float | None = None
        self._seen_empty = False
        self._signals: list[str] = []
        self._reached: dict[ProcessIdentity, list[str]] = {}
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
        """Return how the shim ended, as soon as it has; see `ports.Tree`."""
        if self._process is None and was_stopped(self._place):
            await trio.lowlevel.checkpoint()
            return Exit(status=None, reason="its stop was begun before", stopped=True)
        await self._wait_root()
        if self._exit is None:
            self._exit = read_status(self._place) or self._guess_exit()
        return self._exit

    async def _wait_root(self) -> None:
        if self._identity is None:
            await trio.lowlevel.checkpoint()
            return
        witnessed = await wait_ended(self._identity, is_told=self._is_exit_told)
        if self._process is not None:
            self._process.poll()
            return
        if witnessed is not None:
            self._witnessed = witnessed
        reap(self._identity)  # a child all the same, where this process was the daemon before

    def _is_exit_told(self) -> bool:
        return self._process is not None or read_status(self._place) is not None

    def _guess_exit(self) -> Exit:
        """Return what is known without a status file."""
        if self._process is not None:
            code = self._process.wait()
            return Exit(status=code if code >= 0 else 128 - code)
        if self._witnessed is not None:
            return Exit(status=self._witnessed)
        if self._identity is not None and self._identity.boot_id != boot_id():
            return Exit(status=None, reason="lost in reboot")
        if self._fault is not None:
            return Exit(status=None, reason=self._fault)
        if self._identity is None:
            return Exit(status=None, reason="it never began, or its first process left no status")
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
        await trio.lowlevel.checkpoint_if_cancelled()
        # Whoever has any grace is asked: that it passes while this waits for a thread is no reason.
        with trio.move_on_after(PROOF_BOUND_S, shield=True):
            await self._apart(self._ask, policy)
        await self._wait_empty()
        self._seen_empty = True

    def _ask(self, policy: StopPolicy) -> None:
        number = signal.Signals[policy.signal]
        plan = self._plan(policy)
        if plan is not None and plan.targets:
            self._note_stop()
            self._note(number, deliver(plan.targets, number, self._among))
        try:
            self._group.thaw()
        except OSError as error:
            self._skipped[0] = f"the leaf cannot be thawed: {error.strerror}"

    async def kill(self, policy: StopPolicy) -> StopReport:
        """Kill what is left, prove the tree empty within a bound, report on the whole stop."""
        began = self._began = self._began or trio.current_time()
        emptied = False
        with trio.move_on_after(PROOF_BOUND_S):
            emptied = await self._empty(policy)
        survivors = (
            0 if emptied else await trio.to_thread.run_sync(self._count_survivors, limiter=LOOKING)
        )
        if self._fault is not None:
            self._skipped.setdefault(0, self._fault)
        return StopReport(
            signals=tuple(self._signals),
            killed=len(self._reached if emptied else self._list_ended()),
            signalled=tuple(
                Signalled(pid=identity.pid, signals=tuple(names))
                for identity, names in self._reached.items()
                if names
            ),
            skipped=tuple(
                Skipped(pid=pid, reason=reason) for pid, reason in sorted(self._skipped.items())
            ),
            survivors=survivors,
            emptied=emptied,
            took_s=trio.current_time() - began,
        )

    def _note_stop(self) -> None:
        if self._exit is None:
            note_stop(self._place)

    async def _empty(self, policy: StopPolicy) -> bool:
        """Return True with the proof that nothing is left, False when something must be left."""
        if self._seen_empty and self._try_remove():
            await trio.lowlevel.checkpoint()
            return True
        while True:
            blow = await self._apart(self._strike, policy)
            if blow is _Blow.NOBODY:
                return False
            if blow is _Blow.ALL:
                await self._wait_empty()
                if self._try_remove():
                    return True
            await trio.sleep(_SWEEP_PAUSE_S)

    def _strike(self, policy: StopPolicy) -> _Blow:
        """Kill whoever may be killed."""
        plan = self._plan(policy)
        if plan is None or (plan.skipped and not plan.targets):
            return _Blow.NOBODY
        if plan.targets:
            self._note_stop()
        if not plan.skipped and (self._kill_at_once(plan) or not plan.targets):
            return _Blow.ALL
        self._note(signal.SIGKILL, deliver(plan.targets, signal.SIGKILL, self._among))
        return _Blow.SOME

    def _kill_at_once(self, plan: Plan) -> bool:
        # A shim that has not entered yet must not do so later: it dies first, and by itself.
        late = tuple(stat for stat in plan.targets if self._is_root(stat.pid))
        try:
            if late and late[0].pid not in self._group.among([late[0].pid]):
                not_yet_inside = deliver(late, signal.SIGKILL, lambda pids: pids)
                self._note(signal.SIGKILL, not_yet_inside)
            if not self._group.kill():
                return False
        except OSError:
            return False
        reached: Sent = {stat.identity: (signal.SIGKILL,) for stat in plan.targets}
        self._note(signal.SIGKILL, Delivered(reached=reached))
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
        with contextlib.suppress(OSError):
            return [identity for identity in self._reached if verify(identity) is not None]
        return []

    def _count_survivors(self) -> int:
        """Return how many are left, each with a reason; at least one when nobody can tell."""
        try:
            left = self._list_members()
        except OSError:
            return 1
        for pid, stat in left.items():
            if stat.state == "D":
                reason = "uninterruptible sleep"
            elif "SIGKILL" in self._reached.get(stat.identity, ()):
                reason = "alive after SIGKILL"
            else:
                reason = f"not reached within {PROOF_BOUND_S:g} s"
            self._skipped.setdefault(pid, reason)
        if not left:
            self._skipped.setdefault(0, f"not proven empty within {PROOF_BOUND_S:g} s")
        return max(1, len(left))

    async def _wait_empty(self) -> None:
        """Return once nothing is alive in it; that nobody can tell is no reason to return."""
        while True:
            try:
                await self._wait_root()
                await self._group.wait_empty()
            except OSError as error:
                self._skipped[0] = f"it cannot be told whether the tree is empty: {error.strerror}"
                await trio.sleep(_LOOK_AGAIN_S)
            else:
                return

    async def _apart(self, act: Callable[[StopPolicy], T], policy: StopPolicy) -> T:
        """Do what blocks in a thread, apart from other trees' where a process can keep it waiting.

        Its environment or its names can only be read while it does not hold on to its memory.
        """
        if self._group.waits or policy.protected_commands:
            return await trio.to_thread.run_sync(act, policy, limiter=LOOKING)
        return await _STOPPING.do(act, policy)

    def _plan(self, policy: StopPolicy) -> Plan | None:
        """Return whom to signal now; None, and the reason in the report, when nobody can tell."""
        try:
            plan = self._make_plan(policy)
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
        root = self._identity
        if root is None or root.pid in members:
            return members
        verdict = verify(root)
        if verdict is None:
            # Right after the start the shim may not have entered its cgroup yet.
            return members | read_stats([root.pid])
        if verdict is Verdict.MISMATCH and read_stat(root.pid) is not None:
            self._skipped[root.pid] = verdict
        return members

    def _is_root(self, pid: int) -> bool:
        return self._identity is not None and pid == self._identity.pid

    def _among(self, pids: Collection[int]) -> set[int]:
        root = filter(self._is_root, pids)
        return {*root, *self._group.among(pids)}

    def _note(self, number: signal.Signals, done: Delivered) -> None:
        if done.reached and number.name not in self._signals:
            self._signals.append(number.name)
        for identity, sent in (*done.reached.items(), *((gone, ()) for gone in done.gone)):
            names = self._reached.setdefault(identity, [])
            names += [one.name for one in sent if one.name not in names]
        self._skip(done.skipped)

    def _skip(self, skipped: tuple[Skipped, ...]) -> None:
        self._skipped.update({skip.pid: skip.reason for skip in skipped})

    def preview(self, policy: StopPolicy) -> StopPreview:
        """Return whom a stop would reach now, and whom not; raises `OSError` if nobody can tell."""
        plan = self._make_plan(policy)
        pids = tuple(stat.pid for stat in plan.targets)
        return StopPreview(pids=pids, skipped=plan.skipped)

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
