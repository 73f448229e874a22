"""The pictures the control socket shows, drawn from the state without changing it."""

from datetime import UTC, datetime

import msgspec
import trio

from factoryd.core.events import Recorded, encode_fact, kind_of, run_of
from factoryd.core.model import AgentState, Containment, Data, Issue, IssueState, StopReport
from factoryd.core.policy import Escalate, Skip, hold_reason
from factoryd.core.records import IssueRecord, RunRecord, same_issue
from factoryd.core.registry import Registry
from factoryd.flow.live_run import LiveRun
from factoryd.flow.pulse import Pulses
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.wire.answers import (
    AgentView,
    CountersView,
    DaemonView,
    FactView,
    HandoffView,
    HealthReply,
    IssueView,
    KilledView,
    ProblemView,
    PulseView,
    SignalledView,
    SkippedView,
    SourceView,
    StatusReply,
)


def rfc3339(moment: float) -> str:
    """Return Unix seconds as text in UTC, to the millisecond (RFC 3339)."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _maybe(moment: float | None) -> str | None:
    return None if moment is None else rfc3339(moment)


class Birth(Data, frozen=True, kw_only=True):
    """What stays the same through a daemon's life."""

    pid: int
    version: str
    started_at: float
    adopted_runs: int
    containment: Containment
    controllers: tuple[str, ...] = ()


class Overview:
    """Looks at all parts of a daemon and draws what callers ask for."""

    def __init__(self, birth: Birth, shop: Shop, scheduler: Scheduler, pulses: Pulses) -> None:
        self._birth = birth
        self._ledger = shop.ledger
        self._runner = shop.runner
        self._slots = shop.slots
        self._scheduler = scheduler
        self._pulses = pulses
        self._troubles = shop.troubles
        self._sources = shop.sources
        self._settings = shop.settings
        self._drawn: dict[str, tuple[IssueRecord, int, str | None, IssueView]] = {}
        """Pictures of issues, with the record, the reading of usage and the trouble they show."""

    @property
    def pid(self) -> int:
        """Return the daemon's process id."""
        return self._birth.pid

    async def status(self, targets: tuple[str, ...]) -> StatusReply:
        """Return the picture of now; with targets, only those issues (by key or agent name)."""
        await self._runner.sample()
        wanted = {same_issue(target) for target in targets}
        counters = self._ledger.registry.counters
        return StatusReply(
            daemon=self._daemon(),
            sources=tuple(
                SourceView(
                    name=one.name,
                    kind=one.kind,
                    state="failing" if one.trouble else "ok",
                    problems=_source_problems(one.trouble, one.name)
                    + tuple(
                        ProblemView(where=problem.where, reason=problem.reason)
                        for problem in one.listing.problems
                    ),
                )
                for one in self._scheduler.followers
            )
            + tuple(
                SourceView(name=one.name, kind=one.kind, state="leaving", problems=())
                for one in self._sources.leaving
            ),
            issues=tuple(view for view in self._issues() if not wanted or _is_in(view, wanted)),
            handoffs=tuple(
                HandoffView(
                    agent=one.place.agent,
                    issue=one.place.issue,
                    run=run,
                    reason=one.reason,
                    since=rfc3339(one.since),
                )
                for run, one in self._ledger.registry.handoffs.items()
            ),
            counters=CountersView(
                dispatched=counters.dispatched,
                done=counters.done,
                failed=counters.failed,
                parked=counters.parked,
                resumed=counters.resumed,
                name_collisions=counters.name_collisions,
                reaped=counters.reaped,
            ),
        )

    def health(self) -> HealthReply:
        """Return whether every part makes progress."""
        degraded = self.degraded()
        return HealthReply(
            state="degraded" if degraded else "ok",
            pid=self._birth.pid,
            degraded=degraded,
            heartbeat_age_s=self._pulses.age_s,
            pulses=tuple(
                PulseView(
                    name=one.name,
                    silent_s=one.silent_s,
                    max_silence_s=one.max_silence_s,
                    late=one.late,
                )
                for one in self._pulses.readings()
            ),
            tasks=trio.lowlevel.current_statistics().tasks_living,
        )

    def degraded(self) -> tuple[str, ...]:
        """Return the names of the parts that do not work, each once."""
        failing = [f"source {one.name}" for one in self._scheduler.followers if one.trouble]
        trouble = ["ledger"] if self._ledger.trouble else []
        return tuple(dict.fromkeys([*self._pulses.late(), *failing, *trouble]))

    def headline(self) -> str:
        """Return the daemon's condition in one line."""
        running = sum(
            one.state is IssueState.RUNNING for one in self._ledger.registry.issues.values()
        )
        degraded = self.degraded()
        paused = ", paused" if self._ledger.registry.paused is not None else ""
        suffix = f", degraded: {', '.join(degraded)}" if degraded else ""
        refused = ", the configuration file has mistakes" if self._settings.mistakes else ""
        state = "" if self._pulses.state == "running" else f"{self._pulses.state}: "
        counts = f"issues running: {running}, slots free: {self._slots.free}"
        return f"{state}{counts}{paused}{suffix}{refused}"

    def _daemon(self) -> DaemonView:
        return DaemonView(
            pid=self._birth.pid,
            version=self._birth.version,
            state=self._pulses.state,
            started_at=rfc3339(self._birth.started_at),
            containment=self._birth.containment,
            controllers=self._birth.controllers,
            paused=self._ledger.registry.paused is not None,
            paused_reason=self._ledger.registry.paused,
            slots=self._slots.total,
            free_slots=self._slots.free,
            degraded=self.degraded(),
            heartbeat_age_s=self._pulses.age_s,
            adopted_runs=self._birth.adopted_runs,
            config_mistakes=self._settings.mistakes,
        )

    def _issues(self) -> list[IssueView]:
        registry = self._ledger.registry
        self._drawn = {key: self._draw(key, one) for key, one in registry.issues.items()}
        views = [drawn[-1] for drawn in self._drawn.values()]
        for issue in self._scheduler.ready():
            record = registry.issue(issue.key)
            if record is None or record.state is IssueState.READY:
                views.append(self._ready(issue))
        return views

    def _ready(self, issue: Issue) -> IssueView:
        decision = self._scheduler.decide(issue)
        paused = self._ledger.registry.paused is not None
        why = hold_reason(paused=paused, free_slots=self._slots.free)
        if isinstance(decision, Skip | Escalate):
            why = decision.reason
        return IssueView(
            key=issue.key,
            title=issue.title,
            state=IssueState.READY,
            attempt=0,
            round=0,
            stage=0,
            since=rfc3339(issue.since),
            not_before=None,
            reason=why,
            agents=(),
        )

    def _draw(
        self, key: str, record: IssueRecord
    ) -> tuple[IssueRecord, int, str | None, IssueView]:
        drawn, readings, trouble = (
            self._drawn.get(key),
            self._runner.readings,
            self._troubles.get(key),
        )
        if drawn is not None and drawn[0] is record and drawn[1:3] == (readings, trouble):
            return drawn
        return record, readings, trouble, self._known(record, trouble)

    def _known(self, record: IssueRecord, trouble: str | None) -> IssueView:
        return IssueView(
            key=record.issue.key,
            title=record.issue.title,
            state=record.state,
            attempt=record.attempt,
            round=record.round,
            stage=record.stage,
            since=rfc3339(record.since),
            not_before=_maybe(record.not_before),
            reason=record.frozen_reason if record.frozen else trouble or record.reason,
            frozen=record.frozen,
            agents=tuple(
                _agent(run, self._runner.live.get(run.run), stopping=_stops(record))
                for run in record.runs.values()
            ),
        )


def _stops(record: IssueRecord) -> bool:
    return record.state is IssueState.STOPPING


def _source_problems(trouble: str | None, name: str) -> tuple[ProblemView, ...]:
    return () if trouble is None else (ProblemView(where=name, reason=trouble),)


def _is_in(view: IssueView, wanted: set[str]) -> bool:
    return bool(wanted & {same_issue(view.key), *(agent.name for agent in view.agents)})


def _agent(run: RunRecord, live: LiveRun | None, *, stopping: bool) -> AgentView:
    usage = live.usage if live is not None else None
    receipt = run.receipt
    return AgentView(
        name=run.agent,
        role=run.role,
        state=AgentState.STOPPING if stopping and run.live else run.state,
        run=run.run,
        pid=run.identity.pid if run.identity is not None and run.live else None,
        started_at=rfc3339(run.since),
        resumes=run.resumes,
        session=run.session,
        processes=usage.processes if usage else None,
        cpu_s=usage.cpu_s if usage else receipt.cpu_s if receipt else None,
        memory_bytes=usage.memory_bytes if usage else None,
        peak_processes=(
            live.peak_processes if live else receipt.peak_processes if receipt else None
        ),
        last_output_at=_maybe(live.last_output_at) if live else None,
        exit=run.exit.status if run.exit else None,
    )


def killed_view(agent: str, run: str, report: StopReport) -> KilledView:
    """Return what ending a run took, as callers see it."""
    return KilledView(
        agent=agent,
        run=run,
        signals=report.signals,
        killed=report.killed,
        signalled=tuple(
            SignalledView(pid=one.pid, signals=one.signals) for one in report.signalled
        ),
        skipped=tuple(SkippedView(pid=one.pid, reason=one.reason) for one in report.skipped),
        survivors=report.survivors,
        emptied=report.emptied,
        took_s=report.took_s,
    )


def fact_view(recorded: Recorded) -> FactView:
    """Return a fact as callers see it."""
    return FactView(
        seq=recorded.seq,
        at=rfc3339(recorded.at),
        kind=kind_of(recorded.fact),
        issue=recorded.fact.issue,
        run=run_of(recorded.fact),
        body=msgspec.Raw(encode_fact(recorded.fact)),
    )


def find_issue(registry: Registry, target: str) -> IssueRecord | None:
    """Return the issue that a target names: by its key, or by the name of one of its agents."""
    record = registry.issue(target)
    if record is not None:
        return record
    name = target.lower()
    return next((one for one in registry.issues.values() if name in one.runs), None)
