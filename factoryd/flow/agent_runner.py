"""One agent of a stage: its runs, from the first start to success, failure or a stop.

Leaving an agent's scope, by whatever way, means that its tree is emptied, or that a handoff fact
says why not. There is one exception: a daemon that stops for the next one to go on (`_keep`).
"""

import logging
import secrets
from contextlib import suppress

import trio
from msgspec.structs import replace

from factoryd.core import labels
from factoryd.core.assignment import Assignment
from factoryd.core.config import Config
from factoryd.core.errors import CannotStart, IllegalFact, NameTaken
from factoryd.core.events import (
    HandoffMade,
    RunEmptied,
    RunExited,
    RunResult,
    RunStarted,
    RunStarting,
)
from factoryd.core.evidence import tell_end
from factoryd.core.model import (
    AgentState,
    Data,
    Exit,
    IssueState,
    Receipt,
    RunId,
    StopPolicy,
    StopReport,
    TreePlace,
    Usage,
)
from factoryd.core.names import tell_collision
from factoryd.core.policy import Ending, NextStep, classify_exit, decide_exit
from factoryd.core.records import RunRecord
from factoryd.flow.frost import Frost
from factoryd.flow.ledger import Ledger
from factoryd.flow.live_run import SAMPLE_EVERY_S, LiveRun
from factoryd.flow.stopping import Stopping, stop_policy
from factoryd.ports import AgentKind, Clock, Desk, OutputFollower, ProcessTrees, Tree

logger = logging.getLogger(__name__)

DRAIN_S = 5.0
"""How long the rest of a run's output may take to be passed on once nothing of it runs."""


class RunEnd(Data, frozen=True, kw_only=True):
    """How an agent's work in a stage ended, and the run that decided it."""

    step: NextStep
    agent: str
    place: TreePlace | None
    reason: str


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
        self.frost = Frost(ledger)
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
        try:
            return await self._work(work, config, last, stopping)
        finally:
            labels.AGENT.set(None)
            labels.RUN.set(None)

    async def _work(
        self, work: Assignment, config: Config, last: RunRecord | None, stopping: Stopping
    ) -> RunEnd:
        record = last if last is not None and last.live else None
        resumes = 0 if last is None else last.resumes + (last.result in _COUNTED)
        while True:
            if record is None:
                live = await self._start(work, resumes)
            else:
                live = await self._take_over(record)
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
        while True:
            await self.frost.wait_thawed(work.issue.key)
            try:
                return await self._start_now(work, resumes)
            except IllegalFact:  # the issue was frozen at the same moment
                if not self.frost.is_frozen(work.issue.key):
                    raise

    async def _start_now(self, work: Assignment, resumes: int) -> LiveRun:
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
        live = self._enter(self._ledger_record(work, run), tree, offset=0)
        await self._record_started(live)
        return live

    async def _record_started(self, live: LiveRun) -> None:
        place, identity = live.tree.place, live.tree.identity
        assert identity is not None
        inode = place.cgroup_inode
        await self._ledger.record(
            RunStarted(issue=place.issue, run=place.run, identity=identity, cgroup_inode=inode)
        )

    async def _note_collision(self, work: Assignment, holder: RunId, reason: str) -> None:
        issue = self._ledger.registry.issue(work.issue.key)
        assert issue is not None
        await self._ledger.record(*tell_collision(issue, work.agent, holder, reason))

    def _is_ending(self, key: str) -> bool:
        issue = self._ledger.registry.issue(key)
        return issue is not None and issue.state is IssueState.STOPPING

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

    async def _take_over(self, record: RunRecord) -> LiveRun:
        """Adopt a run, and record its start if the daemon that began it died before that."""
        live = await self._adopt(record)
        if record.identity is None and live.tree.identity is not None:
            with trio.CancelScope(shield=True):
                await self._record_started(live)
        return live

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
        try:
            async with trio.open_nursery() as nursery:
                attention = nursery.cancel_scope
                nursery.start_soon(self._follower.follow, live.record.place, live.offset, live)
                nursery.start_soon(live.watch_usage)
                nursery.start_soon(self.frost.follow, live)
                if work.config.stall_after > 0:
                    after_s = work.config.stall_after
                    nursery.start_soon(self._watch_stall, live, after_s, attention)
                exit_ = live.record.exit or await live.tree.wait_exit()
                if exit_.stopped:
                    logger.warning("a daemon that died had begun to stop it: it is emptied now")
                else:
                    await self._note_exit(live, exit_)
                attention.cancel(reason="the run has ended")
        finally:
            stalled = exit_ is None and live.stalled
            ending = Ending(
                exit=_NOBODY if exit_ is None else exit_,
                began=live.tree.identity is not None,
                stopping=exit_ is None and not stalled,
                complete=self._is_ending(work.issue.key),
                stalled=stalled,
                later_stage=work.stage > 0,
                resumes=live.record.resumes,
                max_resumes=config.resume.max_resumes,
            )
            if stopping.keep and ending.stopping:
                self._keep(live)
            else:
                with trio.CancelScope(shield=True):
                    await self._close(live, config, stopping, ending)
        return RunEnd(
            step=decide_exit(ending),
            agent=work.agent,
            place=live.record.place,
            reason=tell_end(work.agent, ending, live.usage.out_of_memory),
        )

    async def _watch_stall(self, live: LiveRun, after_s: float, scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep_until(live.last_sign + after_s)
            await self.frost.wait_moving(live)
            await live.sample()
            silent_s = trio.current_time() - live.last_sign
            if silent_s >= after_s and not self.frost.is_still(live.record.run):
                logger.warning("stalled: no output and no CPU for %g s", after_s)
                live.stalled = True
                scope.cancel(reason="stalled")
                return

    async def _note_exit(self, live: LiveRun, exit_: Exit) -> None:
        await live.sample()
        if live.record.exit is None:
            place = live.record.place
            await self._ledger.record(RunExited(issue=place.issue, run=place.run, exit=exit_))

    async def _close(
        self, live: LiveRun, config: Config, stopping: Stopping, ending: Ending
    ) -> None:
        """Empty the tree, before anything that could fail; then record what came of the run.

        Its last lines are passed on while it still counts as live: of a run that does not, no later
        daemon would. Who is protected now is spared, whatever it was when the run began.
        """
        report = await stopping.empty(live.tree, self._policy(config))
        await live.sample()
        try:
            await self._pass_on_the_rest(live)
            await self._record_end(live, ending, report)
        finally:
            self._let_go(live)
            self.frost.tell(live.record.place.issue)

    def _policy(self, config: Config) -> StopPolicy:
        policy, rule = stop_policy(config.stop, config.protect), self._ledger.registry.stop_rule
        if rule is None:
            return policy
        return replace(
            policy,
            protected_pids=rule.policy.protected_pids,
            protected_commands=rule.policy.protected_commands,
        )

    async def _pass_on_the_rest(self, live: LiveRun) -> None:
        whole = False
        with trio.move_on_after(DRAIN_S), suppress(OSError):
            await self._follower.drain(live.record.place, live)
            whole = True
        if not whole:
            directory = live.record.place.directory
            logger.warning("the rest of the output is only in %s/output", directory)

    async def _record_end(self, live: LiveRun, ending: Ending, report: StopReport) -> None:
        record, key = live.record, live.record.place.issue
        result, lack = classify_exit(ending), live.usage.out_of_memory
        why = None if result in _GOOD else tell_end(record.agent, ending, lack)
        if report.emptied:
            await self._ledger.record(
                RunEmptied(
                    issue=key,
                    run=record.run,
                    result=result,
                    report=report,
                    receipt=live.receipt(),
                    reason=why,
                )
            )
        else:
            await self._ledger.record(
                HandoffMade(
                    issue=key,
                    run=record.run,
                    result=result,
                    report=report,
                    reason=_left(report),
                    receipt=live.receipt(),
                )
            )
        live.record = self._newest(live.record)

    def _keep(self, live: LiveRun) -> None:
        """Leave a run to the next daemon as it is: for the ledger it goes on, and so it does.

        Nothing else leaves the scope of a run whose tree is not empty. How far its output has been
        passed on is noted already; what it writes meanwhile is in its file.
        """
        logger.info("left running for the next daemon")
        self._let_go(live)

    def _let_go(self, live: LiveRun) -> None:
        live.close()
        del self.live[live.record.run]

    def _newest(self, record: RunRecord) -> RunRecord:
        issue = self._ledger.registry.issue(record.place.issue)
        return record if issue is None else issue.runs.get(record.agent, record)


_NOBODY = Exit(status=None, reason="it was ended before its exit was seen")
_COUNTED = frozenset({RunResult.CRASHED, RunResult.STALLED})
_GOOD = frozenset({RunResult.SUCCEEDED, RunResult.CHANGES})


def _read_usages(trees: list[Tree]) -> list[Usage]:
    return [tree.usage() for tree in trees]


def _left(report: StopReport) -> str:
    pids = ", ".join(f"{left.pid} ({left.reason})" for left in report.skipped[:5])
    left = "1 process is" if report.survivors == 1 else f"{report.survivors} processes are"
    return f"{left} left: {pids or 'unknown'}"
