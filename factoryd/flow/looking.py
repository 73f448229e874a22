"""What the methods that only look answer: the picture, facts and output of agents."""

from functools import partial

import msgspec
import trio

from factoryd.core.errors import BadUsage, FactoryError, NoSuchTarget
from factoryd.core.explain import Circumstances, explain, sum_up
from factoryd.core.model import RunId, TreePlace
from factoryd.core.records import IssueRecord, same_issue
from factoryd.flow.past import read_finished, read_issue, unknown
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.flow.varlink import Say
from factoryd.flow.views import Overview, fact_view, find_issue
from factoryd.wire.answers import (
    EventsReply,
    ExplainReply,
    FindingView,
    HistoryReply,
    LineView,
    LogsReply,
    StatusReply,
)
from factoryd.wire.messages import EventsCall, ExplainCall, HistoryCall, LogsCall, StatusCall

MAX_FACTS = 10_000
MAX_LINES = 10_000

LOOK_EVERY_S = 1.0
"""How often a watched picture is drawn anew when no fact says that it changed."""

_MAX_SEQ = (1 << 63) - 1


class Looking:
    """The methods that change nothing."""

    def __init__(self, shop: Shop, scheduler: Scheduler, overview: Overview) -> None:
        self._scheduler = scheduler
        self._shop = shop
        self._ledger = shop.ledger
        self._runner = shop.runner
        self._desk = shop.desk
        self._overview = overview

    async def status(self, call: StatusCall, say: Say) -> None:
        """Show the picture of now; raise `NoSuchTarget` for a target nobody knows."""
        status = await self._overview.status(call.targets)
        known = {same_issue(issue.key) for issue in status.issues}
        known |= {agent.name for issue in status.issues for agent in issue.agents}
        unknown = [target for target in call.targets if same_issue(target) not in known]
        if unknown:
            raise NoSuchTarget(f"{', '.join(unknown)}: no such issue or agent")
        await say(status)

    async def watch(self, call: StatusCall, say: Say) -> None:
        """Show the picture whenever it changes, until cancelled."""
        shown: StatusReply | None = None
        while True:
            seq = self._ledger.registry.seq
            status = await self._overview.status(call.targets)
            if shown is None or _at_rest(status) != _at_rest(shown):
                shown = status
                await say(status, continues=True)
            with trio.move_on_after(LOOK_EVERY_S):
                await self._ledger.wait_beyond(seq)
            await trio.sleep(0.1)

    def explain(self, call: ExplainCall) -> ExplainReply:
        """Return every check on an issue, known or not, with its answer."""
        record = find_issue(self._ledger.registry, call.target)
        key = call.target if record is None else record.issue.key
        seen, config = self._circumstances(key, record), self._shop.config
        findings = explain(seen, config)
        return ExplainReply(
            issue=key,
            state=None if record is None else record.state,
            verdict=sum_up(findings),
            checks=tuple(
                FindingView(check=one.check, passed=one.passed, detail=one.detail)
                for one in findings
            ),
        )

    def _circumstances(self, key: str, record: IssueRecord | None) -> Circumstances:
        shop, ready = self._shop, self._scheduler.ready()
        shown = next((one for one in ready if same_issue(one.key) == same_issue(key)), None)
        error = None if shown is None else self._scheduler.shunned(shown)
        return Circumstances(
            shown=shown,
            record=record,
            now=shop.clock.now(),
            paused=self._ledger.registry.paused,
            slots=shop.slots.total,
            free_slots=shop.slots.free,
            trouble=shop.troubles.get(same_issue(key)) or error or self._ledger.trouble,
        )

    async def events(self, call: EventsCall, say: Say) -> None:
        """Show facts, up to now or as they happen."""
        since = max(0, min(call.since, _MAX_SEQ))
        limit = max(1, min(call.limit, MAX_FACTS))
        while True:
            seen = self._ledger.registry.seq
            facts = await self._ledger.read(since, limit, call.issue)
            if facts or not call.follow:
                views = tuple(fact_view(fact) for fact in facts)
                await say(EventsReply(facts=views), continues=call.follow)
            if not call.follow:
                return
            since = facts[-1].seq if facts else max(since, seen)
            await self._ledger.wait_beyond(since)

    async def history(self, call: HistoryCall) -> HistoryReply:
        """Return finished issues, or all that one issue went through."""
        before, limit = call.before, call.limit
        if call.target is None:
            return await self._ledger.consult(partial(read_finished, before=before, limit=limit))
        record = find_issue(self._ledger.registry, call.target)
        if record is None:
            raise unknown(call.target)
        key = record.issue.key
        return await self._ledger.consult(partial(read_issue, key=key, before=before, limit=limit))

    async def logs(self, call: LogsCall, say: Say) -> None:
        """Show what a run has written, or go on until it has ended."""
        place = await self._find_run(call)
        lines = max(0, min(call.lines, MAX_LINES))
        read = await trio.to_thread.run_sync(self._desk.read_tail, place, max(1, lines))
        await say(_lines(place, read[-lines:] if lines else []), continues=call.follow)
        if call.follow:
            await self._follow(place, read[-1][0] if read else 0, say)
            await say(_lines(place, []))

    async def _follow(self, place: TreePlace, offset: int, say: Say) -> None:
        """Give what a run writes from `offset` on, until it has ended and all is read."""
        while True:
            live = self._runner.live.get(place.run)
            ended = live is None or live.closed
            passed_on = live.offset if live is not None else 0
            read = await trio.to_thread.run_sync(
                partial(self._desk.read_from, place, offset, to_the_end=ended)
            )
            if read:
                offset = read[-1][0]
                await say(_lines(place, read), continues=True)
            elif ended or live is None:
                return
            else:
                await live.wait_beyond(passed_on)

    async def _find_run(self, call: LogsCall) -> TreePlace:
        record = find_issue(self._ledger.registry, call.target)
        if record is None:
            raise NoSuchTarget(f"{call.target}: no such issue or agent")
        if call.run is not None:
            find = self._desk.find_run
            place = await trio.to_thread.run_sync(find, record.issue.key, RunId(call.run))
            if place is None:
                raise NoSuchTarget(f"{call.run}: {record.issue.key} has no such run")
            return place
        run = record.runs.get(call.target.lower())
        if run is None and len(record.runs) == 1:
            (run,) = record.runs.values()
        if run is None and not record.runs:
            raise FactoryError(f"{record.issue.key}: no agent of it has run yet")
        if run is None:
            raise BadUsage(
                f"{record.issue.key} has several agents: name one of {', '.join(record.runs)}"
            )
        return run.place


def _at_rest(status: StatusReply) -> StatusReply:
    """Return a picture without what changes while nothing happens."""
    daemon = msgspec.structs.replace(status.daemon, heartbeat_age_s=None)
    return msgspec.structs.replace(status, daemon=daemon)


def _lines(place: TreePlace, lines: list[tuple[int, str]]) -> LogsReply:
    views = tuple(LineView(offset=offset, text=text) for offset, text in lines)
    return LogsReply(agent=place.agent, run=place.run, lines=views)
