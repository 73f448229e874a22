"""One attempt at an issue: its claim checked again, its workspace, its stages and rounds."""

import logging

import trio

from factoryd.core.assignment import Assignment, agent_name
from factoryd.core.errors import SourceFailed
from factoryd.core.events import AttemptStarted, RunResult, StageStarted
from factoryd.core.model import Data, Issue, RunId, TreePlace
from factoryd.core.policy import NextStep
from factoryd.core.records import IssueRecord, RunRecord
from factoryd.core.triage import refuse_scope
from factoryd.flow.agent_runner import RunEnd
from factoryd.flow.shop import RETRY_AFTER_S, Shop
from factoryd.flow.stopping import Stopping

logger = logging.getLogger(__name__)

FEEDBACK_LINES = 200
"""How much of a reviewer's output the next round gets to read."""


class Gone(Exception):
    """The issue may no longer be worked on: gone from its source, or out of scope now."""


class StagesEnd(Data, frozen=True, kw_only=True):
    """How an attempt's stages ended."""

    step: NextStep
    reason: str | None = None
    final: bool = False


class Attempt:
    """An attempt at one issue, begun or gone on with as the ledger says."""

    def __init__(self, shop: Shop, key: str, stopping: Stopping) -> None:
        self._shop = shop
        self._key = key
        self._stopping = stopping

    @property
    def _record(self) -> IssueRecord:
        return self._shop.record(self._key)

    async def run(self) -> StagesEnd:
        """Begin the attempt, or go on with the one that is open, and run its stages.

        Raises `Gone` before anything is started when the issue may not be worked on any more, and
        a `FactoryError` when something it needs cannot be had. Either way no agent is left running.
        """
        record = self._record
        if record.attempt_open:
            issue = (await self._read(record.issue)) or record.issue
            workspace = await self._shop.workspaces.prepare(issue, record.repo)
        else:
            await self._claim(record.issue)
            workspace = await self._shop.workspaces.prepare(record.issue, record.repo)
            issue = await self._recheck(record.issue)
            attempt = record.attempts_used + 1
            await self._shop.ledger.record(AttemptStarted(issue=self._key, attempt=attempt))
        issue_file = await trio.to_thread.run_sync(self._shop.desk.write_issue, issue)
        limit = self._shop.config.dispatch.time_limit
        used = self._shop.clock.now() - self._record.attempt_since
        with trio.move_on_after(max(0.0, limit - used) if limit else float("inf")):
            return await self._run_stages(issue, workspace, issue_file)
        return StagesEnd(step=NextStep.FAIL, reason=f"time limit of {limit:g} s reached")

    async def _claim(self, issue: Issue) -> None:
        await self._recheck(issue)
        while True:
            try:
                await self._shop.source(issue.source).claim(issue)
            except SourceFailed as error:
                logger.warning("the claim could not be made, trying again: %s", error)
                await trio.sleep(RETRY_AFTER_S[0])
                await self._recheck(issue)
            else:
                return

    async def _recheck(self, issue: Issue) -> Issue:
        now = await self._read(issue)
        if now is None:
            raise Gone("it is gone from its source")
        refused = refuse_scope(now, self._shop.config.safety)
        if refused is not None:
            raise Gone(refused)
        return now

    async def _run_stages(self, issue: Issue, workspace: str, issue_file: str) -> StagesEnd:
        recipe = self._shop.config.recipes.get(self._record.recipe)
        if recipe is None:
            reason = f"the configuration no longer has the recipe {self._record.recipe!r}"
            return StagesEnd(step=NextStep.FAIL, reason=reason)
        round_, stage = self._record.round, self._record.stage
        while stage < len(recipe.stages):
            if round_ > recipe.max_rounds:
                return StagesEnd(step=NextStep.FAIL, reason="review rounds used up", final=True)
            await self._shop.ledger.record(StageStarted(issue=self._key, round=round_, stage=stage))
            team = self._assignments(recipe.stages[stage], issue, workspace, issue_file)
            ends = await self._run_stage(team, fail_fast=recipe.on_failure == "cancel")
            end = min(ends, key=lambda one: _SEVERITY.index(one.step))
            if end.step is NextStep.ANOTHER_ROUND:
                await self._keep_feedback(end.place)
                round_, stage = round_ + 1, 0
            elif end.step is NextStep.FINISH:
                stage += 1
            else:
                return StagesEnd(step=end.step, reason=end.reason)
        return StagesEnd(step=NextStep.FINISH)

    def _assignments(
        self, roles: tuple[str, ...], issue: Issue, workspace: str, issue_file: str
    ) -> list[Assignment]:
        record, agents = self._record, self._shop.config.agents
        feedback = self._shop.desk.feedback_path(self._key) if record.round > 1 else None
        return [
            Assignment(
                issue=issue,
                agent=agent_name(issue.key, role, agents[role]),
                role=role,
                config=agents[role],
                attempt=record.attempt,
                round=record.round,
                stage=record.stage,
                workspace=workspace,
                issue_file=issue_file,
                socket=self._shop.socket,
                feedback_file=feedback,
            )
            for role in roles
        ]

    async def _run_stage(self, team: list[Assignment], *, fail_fast: bool) -> list[RunEnd]:
        ends: list[RunEnd] = []

        async def member(work: Assignment) -> None:
            last = self._last_run_here(work.agent)
            end = await self._shop.runner.work(work, self._shop.config, last, self._stopping)
            ends.append(end)
            if fail_fast and end.step in {NextStep.FAIL, NextStep.DEFER}:
                nursery.cancel_scope.cancel(reason=f"{work.agent} ended its stage: {end.reason}")

        async with trio.open_nursery() as nursery:
            for work in team:
                last = self._last_run_here(work.agent)
                if last is None or last.result is not RunResult.SUCCEEDED:
                    nursery.start_soon(member, work)
        return ends or [_finished_before(team[0])]

    def _last_run_here(self, agent: str) -> RunRecord | None:
        record = self._record
        run = record.runs.get(agent)
        here = run is not None and (run.round, run.stage) == (record.round, record.stage)
        return run if here else None

    async def _keep_feedback(self, place: TreePlace) -> None:
        def keep() -> None:
            lines = self._shop.desk.read_tail(place, FEEDBACK_LINES)
            text = "\n".join(text for _, text in lines)
            self._shop.desk.write_feedback(self._key, text)

        await trio.to_thread.run_sync(keep)

    async def _read(self, issue: Issue) -> Issue | None:
        return await self._shop.ask(issue, lambda source: source.read(issue))


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


def _finished_before(work: Assignment) -> RunEnd:
    nowhere = TreePlace(run=RunId(""), issue=work.issue.key, agent=work.agent, directory="")
    return RunEnd(step=NextStep.FINISH, agent=work.agent, place=nowhere, reason="")
