"""One agent of a stage: its runs, from the first start to success, failure or a stop.

Leaving an agent's scope, by whatever way, means that its tree is emptied, or that a handoff fact
says why not.
"""

import logging
import secrets
from contextlib import suppress

import trio
from msgspec.structs import replace

from factoryd.core import labels
from factoryd.core.assignment import Assignment
from factoryd.core.config import Config
from factoryd.core.errors import CannotStart, NameTaken
from factoryd.core.events import (
    HandoffMade,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarted,
    RunStarting,
)
from factoryd.core.model import AgentState, Data, Exit, Receipt, RunId, StopReport, TreePlace, Usage
from factoryd.core.names import tell_collision
from factoryd.core.policy import Ending, NextStep, classify_exit, decide_exit
from factoryd.core.records import RunRecord
from factoryd.flow.ledger import Ledger
from factoryd.flow.stopping import Stopping, stop_policy
from factoryd.ports import AgentKind, Clock, Desk, OutputFollower, ProcessTrees, Tree

logger = logging.getLogger(__name__)

SAMPLE_EVERY_S = 1.0
"""Usage is read at most so often, however often it is asked for."""


DRAIN_S = 5.0
"""How long the rest of a run's output may take to be passed on once nothing of it runs."""


class RunEnd(Data, frozen=True, kw_only=True):
    """How an agent's work in a stage ended, and the run that decided it."""

    step: NextStep
    agent: str
    place: TreePlace | None
    reason: str


class LiveRun:
    """A run whose scope is open: its tree, and what was seen of it so far."""

    def __init__(
        self, record: RunRecord, tree: Tree, desk: Desk, clock: Clock, *, offset: int
    ) -> None:
        self.record = record
        self.tree = tree
        self.usage = Usage()
        self.cpu_s: float | None = None
        self.peak_processes: int | None = None
        self.peak_memory_bytes: int | None = None
        self.last_output_at: float | None = None
        self.last_sign = trio.current_time()
        self.closed = False
        self._wrote = trio.Event()
        self._moved = trio.Event()
        self._desk = desk
        self._clock = clock
        self._offset = offset

    @property
    def offset(self) -> int:
        """Return the position up to which the run's output has been passed on."""
        return self._offset

    def advance(self, offset: int) -> None:
        """Note that everything before `offset` has been passed on."""
        self._offset = offset
        self.last_output_at = self._clock.now()
        self.last_sign = trio.current_time()
        with suppress(OSError):  # a full disk: the next daemon passes on some lines again
            self._desk.note_followed(self.record.place, offset)
        self._wrote.set()
        self._announce()

    def close(self) -> None:
        """Release the tree; whoever waits for more of the run learns that there is none."""
        self.tree.close()
        self.closed = True
        self._announce()

    async def wait_beyond(self, offset: int) -> None:
        """Return once output beyond `offset` was passed on, or none will be."""
        while self._offset <= offset and not self.closed:
            await self._moved.wait()

    def _announce(self) -> None:
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    async def watch_usage(self) -> None:
        """Look at the usage, for its peaks, while the run writes; a silent run wakes nobody."""
        while True:
            await self._wrote.wait()
            self._wrote = trio.Event()
            await self.sample()
            await trio.sleep(SAMPLE_EVERY_S)

    async def sample(self) -> None:
        """Read the tree's usage, in a thread, and remember it."""
        self.note(await trio.to_thread.run_sync(self.tree.usage))

    def note(self, usage: Usage) -> None:
        """Take a reading of the tree's usage: the newest, and the peaks."""
        if (usage.cpu_s or 0) > (self.cpu_s or 0):
            self.last_sign = trio.current_time()
            self.cpu_s = usage.cpu_s
        self.usage = usage
        self.peak_processes = _larger(self.peak_processes, usage.processes)
        self.peak_memory_bytes = _larger(self.peak_memory_bytes, usage.memory_bytes)


def _larger(one: int | None, other: int | None) -> int | None:
    return max((n for n in (one, other) if n is not None), default=None)


class AgentRunner:
    """Runs agents; its `live` runs are what status and logs look at."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        trees: ProcessTrees,
        kinds: dict[str, AgentKind],
        follower: OutputFollower,
        desk: Desk,
        clock: Clock,
    ) -> None:
        self.live: dict[RunId, LiveRun] = {}
        self._ledger = ledger
        self._trees = trees
        self._kinds = kinds
        self._follower = follower
        self._desk = desk
        self._clock = clock
        self._sampled_at = float("-inf")
        self.readings = 0
        """How often the usage of all live runs was read."""

    async def work(
        self, work: Assignment, config: Config, last: RunRecord | None, stopping: Stopping
    ) -> RunEnd:
        """Run an agent until its part is done, resuming it while the budget lasts.

        `last` is the agent's newest run in this stage, if an earlier daemon began it: a live one is
        taken over, an ended one counts towards the budget.
        """
        labels.AGENT.set(work.agent)
        record = last if last is not None and last.live else None
        resumes = 0 if last is None else last.resumes + (last.result in _COUNTED)
        while True:
            if record is None:
                live = await self._start(work, resumes)
            else:
                live = await self._adopt(record)
            end = await self._attend(live, work, config, stopping)
            if end.step is not NextStep.RESUME:
                return end
            if live.record.state is AgentState.LEAKED:
                why = live.record.reason or "its tree is not empty"
                await self._note_collision(work, live.record.run, why)
                reason = f"{end.reason} and cannot be resumed: {why}"
                return replace(end, step=NextStep.FAIL, reason=reason)
            resumes += live.record.result in _COUNTED
            record = None
            await trio.sleep(config.resume.delay)

    async def sample(self) -> None:
        """Bring the usage of all live runs up to date, unless that was done a moment ago."""
        if trio.current_time() - self._sampled_at < SAMPLE_EVERY_S:
            return
        self._sampled_at = trio.current_time()
        runs = list(self.live.values())
        usages = await trio.to_thread.run_sync(_read_usages, [live.tree for live in runs])
        for live, usage in zip(runs, usages, strict=True):
            live.note(usage)
        self.readings += 1

    async def empty_abandoned(self, record: RunRecord, config: Config, stopping: Stopping) -> None:
        """Close a run that nobody attends: end what is left of its tree and record it."""
        live = await self._adopt(record)
        with trio.CancelScope(shield=True):
            await self._close(live, config, stopping, Ending(exit=_NOBODY, stopping=True))

    async def _start(self, work: Assignment, resumes: int) -> LiveRun:
        run = RunId(f"{work.agent}-{secrets.token_hex(4)}")
        labels.RUN.set(run)
        directory = self._desk.make_run_directory(work.issue.key, run)
        place = self._trees.place(work.issue.key, work.agent, run, directory)
        live: LiveRun | None = None
        with trio.CancelScope(shield=True):
            live = await self._start_recorded(work, place, resumes)
        assert live is not None
        return live

    async def _start_recorded(self, work: Assignment, place: TreePlace, resumes: int) -> LiveRun:
        key, run, agent = work.issue.key, place.run, work.agent
        issue = self._ledger.registry.issue(key)
        starting = RunStarting(
            issue=key, run=run, agent=agent, role=work.role, place=place, resumes=resumes
        )
        starting = replace(starting, session=issue.session_of(agent) if issue else None)
        taken: NameTaken | None = None
        try:
            await self._ledger.record(starting)
        except NameTaken as error:
            taken = error
        if taken is not None:
            await self._note_collision(work, RunId(taken.holder), str(taken))
            raise taken
        command = self._kinds[work.config.kind].command(work, run, starting.session)
        tree: Tree | CannotStart
        try:
            tree = await self._trees.start(place, command)
        except CannotStart as error:
            tree = error
        if isinstance(tree, CannotStart):
            await self._record_unstarted(work, run, str(tree))
            raise tree
        assert tree.identity is not None
        live = self._enter(self._ledger_record(work, run), tree, offset=0)
        await self._ledger.record(RunStarted(issue=key, run=run, identity=tree.identity))
        return live

    async def _note_collision(self, work: Assignment, holder: RunId, reason: str) -> None:
        issue = self._ledger.registry.issue(work.issue.key)
        assert issue is not None
        await self._ledger.record(*tell_collision(issue, work.agent, holder, reason))

    def _ledger_record(self, work: Assignment, run: RunId) -> RunRecord:
        issue = self._ledger.registry.issue(work.issue.key)
        assert issue is not None
        record = issue.runs[work.agent]
        assert record.run == run
        return record

    async def _record_unstarted(self, work: Assignment, run: RunId, reason: str) -> None:
        await self._ledger.record(
            RunEmptied(
                issue=work.issue.key,
                run=run,
                result=RunResult.CRASHED,
                report=StopReport(),
                receipt=Receipt(wall_s=0.0),
                reason=reason,
            )
        )

    async def _adopt(self, record: RunRecord) -> LiveRun:
        labels.RUN.set(record.run)
        tree = await self._trees.adopt(record.place, record.identity)
        return self._enter(record, tree, offset=self._desk.read_followed(record.place))

    def _enter(self, record: RunRecord, tree: Tree, *, offset: int) -> LiveRun:
        live = LiveRun(record, tree, self._desk, self._clock, offset=offset)
        self.live[record.run] = live
        return live

    async def _attend(
        self, live: LiveRun, work: Assignment, config: Config, stopping: Stopping
    ) -> RunEnd:
        exit_: Exit | None = None
        attention = trio.CancelScope()
        try:
            with attention:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._follower.follow, live.record.place, live.offset, live)
                    nursery.start_soon(live.watch_usage)
                    if work.config.stall_after > 0:
                        stall_after = work.config.stall_after
                        nursery.start_soon(self._watch_for_stall, live, stall_after, attention)
                    exit_ = live.record.exit or await live.tree.wait_exit()
                    await self._note_exit(live, exit_)
                    nursery.cancel_scope.cancel(reason="the run has ended")
        finally:
            stalled = exit_ is None and attention.cancel_called
            ending = Ending(
                exit=exit_ or _NOBODY,
                stopping=exit_ is None and not stalled,
                stalled=stalled,
                later_stage=work.stage > 0,
                resumes=live.record.resumes,
                max_resumes=config.resume.max_resumes,
            )
            with trio.CancelScope(shield=True):
                await self._close(live, config, stopping, ending)
        return RunEnd(
            step=decide_exit(ending),
            agent=work.agent,
            place=live.record.place,
            reason=_describe(work.agent, ending),
        )

    async def _watch_for_stall(
        self, live: LiveRun, stall_after: float, attention: trio.CancelScope
    ) -> None:
        while True:
            await trio.sleep_until(live.last_sign + stall_after)
            await live.sample()
            if trio.current_time() - live.last_sign >= stall_after:
                logger.warning("stalled: no output and no CPU for %g s", stall_after)
                attention.cancel(reason="stalled")
                return

    async def _note_exit(self, live: LiveRun, exit_: Exit) -> None:
        await live.sample()
        if live.record.exit is None:
            place = live.record.place
            await self._ledger.record(RunExited(issue=place.issue, run=place.run, exit=exit_))

    async def _close(
        self, live: LiveRun, config: Config, stopping: Stopping, ending: Ending
    ) -> None:
        """Empty the tree, before anything that could fail; then record what came of the run."""
        report = await stopping.empty(live.tree, stop_policy(config.stop, config.protect))
        record, key = live.record, live.record.place.issue
        await live.sample()
        result = classify_exit(ending)
        if report.emptied:
            await self._ledger.record(
                RunEmptied(
                    issue=key,
                    run=record.run,
                    result=result,
                    report=report,
                    receipt=self._receipt(live),
                    reason=None if result in _GOOD else _describe(record.agent, ending),
                )
            )
        else:
            await self._ledger.record(
                HandoffMade(
                    issue=key, run=record.run, result=result, report=report, reason=_left(report)
                )
            )
        live.record = self._newest(live.record)
        try:
            with trio.move_on_after(DRAIN_S) as drain:
                await self._follower.drain(record.place, live)
        finally:
            live.close()
            del self.live[record.run]
        if drain.cancelled_caught:
            logger.warning("the rest of the output is only in %s/output", record.place.directory)

    def _newest(self, record: RunRecord) -> RunRecord:
        issue = self._ledger.registry.issue(record.place.issue)
        return record if issue is None else issue.runs.get(record.agent, record)

    def _receipt(self, live: LiveRun) -> Receipt:
        return Receipt(
            wall_s=max(0.0, self._clock.now() - live.record.since),
            cpu_s=live.cpu_s,
            peak_processes=live.peak_processes,
            peak_memory_bytes=live.peak_memory_bytes,
        )


_NOBODY = Exit(status=None, reason="it was ended before its exit was seen")
_COUNTED = frozenset({RunResult.CRASHED, RunResult.STALLED})
_GOOD = frozenset({RunResult.SUCCEEDED, RunResult.CHANGES})


def _read_usages(trees: list[Tree]) -> list[Usage]:
    return [tree.usage() for tree in trees]


def _left(report: StopReport) -> str:
    pids = ", ".join(f"{left.pid} ({left.reason})" for left in report.skipped[:5])
    return f"{report.survivors} processes are left: {pids or 'unknown'}"


def _describe(agent: str, ending: Ending) -> str:
    result = classify_exit(ending)
    match result:
        case RunResult.STALLED:
            return f"{agent} stalled"
        case RunResult.STOPPED:
            return f"{agent} was stopped"
        case RunResult.LOST:
            return f"{agent} was lost: {ending.exit.reason}"
        case RunResult.DEFERRED:
            return f"{agent} asked to be run later (exit 75)"
        case _:
            return f"{agent} exited with {ending.exit.status}"
