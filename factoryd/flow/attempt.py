"""One attempt at an issue: its claim checked again, its workspace, its stages and rounds."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import trio
from msgspec.structs import replace

from factoryd.core.assignment import Assignment, agent_name
from factoryd.core.config import AgentConfig, Config
from factoryd.core.errors import CannotStart, NameTaken, SourceFailed, WorkspaceFailed
from factoryd.core.events import AttemptStarted, IssueRerouted, RunResult, StageStarted
from factoryd.core.model import Data, Issue, TreePlace
from factoryd.core.policy import NextStep
from factoryd.core.records import IssueRecord, RunRecord, same_issue
from factoryd.core.triage import Unrouted, choose_route, refuse_scope
from factoryd.flow.agent_runner import RunEnd
from factoryd.flow.shop import RETRY_AFTER_S, Shop
from factoryd.flow.slots import Seat
from factoryd.flow.stopping import Stopping

logger = logging.getLogger(__name__)

FRESH_S = 0.1
"""An issue that was read longer ago than this is read again before its first agent starts."""

FEEDBACK_LINES = 200
"""How much of a reviewer's output the next round gets to read."""

CHANGED = "it, or the configuration, changed before anything was started"


class Gone(Exception):
    """The issue may no longer be worked on: gone from its source, or out of scope now."""


class Lost(Exception):
    """The issue changed, before anything of it was started, so that no route leads anywhere."""


class StagesEnd(Data, frozen=True, kw_only=True):
    """How an attempt's stages ended."""

    step: NextStep
    reason: str | None = None
    final: bool = False


class Attempt:
    """An attempt at one issue, begun or gone on with as the ledger says.

    It ends with the configuration that it began with, whatever is loaded meanwhile.
    """

    def __init__(self, shop: Shop, key: str, seat: Seat, stopping: Stopping) -> None:
        self._shop = shop
        self._key = key
        self._seat = seat
        self._stopping = stopping
        self._checked_at = float("-inf")

    @property
    def _record(self) -> IssueRecord:
        return self._shop.record(self._key)

    async def run(self) -> StagesEnd:
        """Begin the attempt, or go on with the one that is open, and run its stages.

        Raises `Gone` before anything is started when the issue may not be worked on any more,
        `Lost` when nobody knows where, and a `FactoryError` when something it needs cannot be had.
        Either way no agent is left running.
        """
        record, config = self._record, self._shop.config
        if record.attempt_open and record.runs:
            # Agents have begun: they are taken over at once, even while the source is silent.
            issue, issue_file = record.issue, self._shop.desk.issue_path(record.issue.key)
            workspace = await self._shop.workspaces.prepare(issue, record.repo)
        else:
            issue, workspace = await self._check_in()
            while self._is_outdated(config):
                if not record.attempt_open:
                    await self._shop.wait_resumed()
                config = self._shop.config
                issue, workspace = await self._check_in()
            if not record.attempt_open:
                self._stopping.grace_s = config.stop.grace
                attempt = record.attempts_used + 1
                await self._shop.ledger.record(
                    AttemptStarted(issue=self._key, attempt=attempt),
                    StageStarted(issue=self._key, round=1, stage=0),
                )
            issue_file = self._shop.desk.write_issue(issue)
        limit = config.dispatch.time_limit or float("inf")
        adopted = bool(record.live_runs)
        used = self._shop.clock.now() - record.attempt_since if adopted else 0.0
        with trio.move_on_after(max(0.0, limit - used)):
            return await self._run_stages(issue, workspace, issue_file, config)
        return StagesEnd(step=NextStep.FAIL, reason=f"time limit of {limit:g} s reached")

    def _is_outdated(self, config: Config) -> bool:
        """Say whether what was checked under a configuration may be otherwise by now."""
        held = self._shop.ledger.registry.paused is not None and not self._record.attempt_open
        return held or self._shop.config is not config

    async def _check_in(self) -> tuple[Issue, str]:
        """Return the issue as it is right before its first agent, claimed, and its workspace."""
        workspaces = self._shop.workspaces
        issue = await self._checked(self._claim)
        while True:
            before = self._record
            workspace = await workspaces.prepare(before.issue, before.repo)
            if trio.current_time() - self._checked_at > FRESH_S:
                issue = await self._checked(self._recheck)
            if self._record.repo == before.repo:
                return issue, workspace
            with suppress(WorkspaceFailed):
                await workspaces.release(before.issue, before.repo)

    async def _checked(self, ask: Callable[[], Awaitable[Issue]]) -> Issue:
        """Return what the source shows, if that is still the issue that was taken on."""
        issue = await self._seat.lend_while(ask)
        refused = refuse_scope(issue, self._shop.config.safety)
        if refused is not None:
            raise Gone(refused)
        if self._record.attempt == 0:
            await self._triage_anew(issue)
        self._checked_at = trio.current_time()
        return issue

    async def _triage_anew(self, issue: Issue) -> None:
        route, record = choose_route(issue, self._shop.config), self._record
        if isinstance(route, Unrouted):
            raise Lost(f"{CHANGED}: {route.reason}")
        if (route.repo, route.recipe) != (record.repo, record.recipe):
            await self._shop.ledger.record(
                IssueRerouted(
                    issue=self._key,
                    work=replace(issue, body=""),
                    repo=route.repo,
                    recipe=route.recipe,
                    reason=f"{CHANGED}: {route.why}",
                )
            )

    async def _claim(self) -> Issue:
        issue, key = self._record.issue, same_issue(self._key)
        try:
            while True:
                try:
                    return _there(await self._shop.source(issue).claim(issue))
                except SourceFailed as error:
                    await self._recheck()
                    self._shop.troubles[key] = f"it cannot be claimed: {error}"
                    logger.warning("the claim could not be made, trying again: %s", error)
                    await trio.sleep(RETRY_AFTER_S[0])
        finally:
            self._shop.troubles.pop(key, None)

    async def _recheck(self) -> Issue:
        issue = self._record.issue
        now = _there(await self._shop.ask(issue, lambda source: source.read(issue)))
        refused = refuse_scope(now, self._shop.config.safety)
        if refused is not None:
            raise Gone(refused)
        return now

    async def _run_stages(
        self, issue: Issue, workspace: str, issue_file: str, config: Config
    ) -> StagesEnd:
        recipe = config.recipes.get(self._record.recipe)
        if recipe is None:
            reason = f"the configuration no longer has the recipe {self._record.recipe!r}"
            return StagesEnd(step=NextStep.FAIL, reason=reason)
        round_, stage = self._record.round, self._record.stage
        while stage < len(recipe.stages):
            if round_ > recipe.max_rounds:
                return StagesEnd(step=NextStep.FAIL, reason="review rounds used up", final=True)
            if (round_, stage) != (self._record.round, self._record.stage):
                await self._shop.ledger.record(
                    StageStarted(issue=self._key, round=round_, stage=stage)
                )
            agents = {role: config.agents[role] for role in recipe.stages[stage]}
            team = self._assignments(agents, issue, workspace, issue_file)
            ends = await self._run_stage(team, config, fail_fast=recipe.on_failure == "cancel")
            end = min(ends, key=lambda one: _SEVERITY.index(one.step))
            if end.step is NextStep.ANOTHER_ROUND:
                await self._keep_feedback(
                    [e.place for e in ends if e.place and e.step is NextStep.ANOTHER_ROUND]
                )
                round_, stage = round_ + 1, 0
            elif end.step is NextStep.FINISH:
                stage += 1
            else:
                return StagesEnd(step=end.step, reason=end.reason)
        return StagesEnd(step=NextStep.FINISH)

    def _assignments(
        self, agents: Mapping[str, AgentConfig], issue: Issue, workspace: str, issue_file: str
    ) -> list[Assignment]:
        record = self._record
        feedback = self._shop.desk.feedback_path(self._key) if record.round > 1 else None
        return [
            Assignment(
                issue=issue,
                agent=agent_name(issue.key, role, agent),
                role=role,
                config=agent,
                attempt=record.attempt,
                round=record.round,
                stage=record.stage,
                workspace=workspace,
                issue_file=issue_file,
                socket=self._shop.socket,
                feedback_file=feedback,
            )
            for role, agent in agents.items()
        ]

    async def _run_stage(
        self, team: list[Assignment], config: Config, *, fail_fast: bool
    ) -> list[RunEnd]:
        max_resumes = config.resume.max_resumes
        begun = [self._end_before(self._last_run_here(work.agent), max_resumes) for work in team]
        ends = [end for end in begun if end is not None]
        if fail_fast and any(end.step is NextStep.FAIL for end in ends):
            return ends

        left = [work for work, end in zip(team, begun, strict=True) if end is None]
        if len(left) == 1:  # the usual stage: a task for it would only make a start dearer
            return [*ends, await self._work(left[0], config)]

        async def member(work: Assignment) -> None:
            end = await self._work(work, config)
            ends.append(end)
            if fail_fast and end.step in {NextStep.FAIL, NextStep.DEFER}:
                nursery.cancel_scope.cancel(reason=f"{work.agent} ended its stage: {end.reason}")

        async with trio.open_nursery() as nursery:
            for work in left:
                nursery.start_soon(member, work)
        return ends

    async def _work(self, work: Assignment, config: Config) -> RunEnd:
        last, runner = self._last_run_here(work.agent), self._shop.runner
        try:
            return await runner.work(work, config, last, self._stopping)
        except (CannotStart, NameTaken) as error:
            return RunEnd(step=NextStep.FAIL, agent=work.agent, place=None, reason=str(error))

    def _last_run_here(self, agent: str) -> RunRecord | None:
        record = self._record
        run = record.runs.get(agent)
        here = run is not None and (run.round, run.stage) == (record.round, record.stage)
        return run if here else None

    def _end_before(self, run: RunRecord | None, max_resumes: int) -> RunEnd | None:
        """Return how an agent's part in this stage ended under an earlier daemon, if it did."""
        step = None if run is None or run.result is None else _ENDED_BY.get(run.result)
        if run is None or step is None:
            return None
        if step is NextStep.FAIL and run.resumes < max_resumes:
            return None
        return RunEnd(step=step, agent=run.agent, place=run.place, reason=run.reason or "")

    async def _keep_feedback(self, places: list[TreePlace]) -> None:
        desk, texts = self._shop.desk, list[str]()
        for place in places:
            lines = await trio.to_thread.run_sync(desk.read_tail, place, FEEDBACK_LINES)
            texts += [text for _, text in lines]
        desk.write_feedback(self._key, "\n".join(texts))


def _there(now: Issue | None) -> Issue:
    if now is None:
        raise Gone("it is gone from its source")
    return now


_SEVERITY = (
    NextStep.FAIL,
    NextStep.DEFER,
    NextStep.ANOTHER_ROUND,
    NextStep.RELEASE,
    NextStep.IGNORE,
    NextStep.RESUME,
    NextStep.FINISH,
)
"""Which of a stage's ends decides, the first one present."""

_ENDED_BY = {
    RunResult.SUCCEEDED: NextStep.FINISH,
    RunResult.CHANGES: NextStep.ANOTHER_ROUND,
    RunResult.DEFERRED: NextStep.DEFER,
    RunResult.CRASHED: NextStep.FAIL,
    RunResult.STALLED: NextStep.FAIL,
}
"""What a run's result means for a stage that goes on; a failure only once its resumes are spent."""
