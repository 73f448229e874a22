"""The picture of everything, as a pure fold over facts.

A `Draft` checks and folds facts over a `Registry` without touching it, so that facts are checked
before they are committed and applied only after.
"""

from collections import ChainMap
from collections.abc import Iterable
from copy import copy
from typing import TypeVar

import msgspec
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.errors import IllegalFact
from factoryd.core.events import (
    AnyFact,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    ConfigurationLoaded,
    DaemonStarted,
    DaemonStopped,
    Entry,
    FactoryPaused,
    FactoryResumed,
    HandoffCleared,
    HandoffMade,
    IssueCancelled,
    IssueClaimed,
    IssueDone,
    IssueEscalated,
    IssueFrozen,
    IssueLeftReady,
    IssueParked,
    IssueReopened,
    IssueRerouted,
    IssueStopping,
    IssueThawed,
    NameCollided,
    OutcomeWithheld,
    OutcomeWritten,
    Recorded,
    RunEmptied,
    RunExited,
    RunStarted,
    RunStarting,
    StageStarted,
)
from factoryd.core.frozen import freeze_or_thaw, thawed
from factoryd.core.lifecycle import next_state
from factoryd.core.model import IssueState, RunId
from factoryd.core.names import check_name_free
from factoryd.core.records import (
    Counters,
    HandoffRecord,
    IssueRecord,
    RunRecord,
    Snapshot,
    StopRule,
    same_issue,
)
from factoryd.core.run_life import RunFact, move_run

T = TypeVar("T")


class Registry:
    """The state of all issues, handoffs and counters after the last committed fact."""

    def __init__(self) -> None:
        self.issues: dict[str, IssueRecord] = {}
        self.handoffs: dict[str, HandoffRecord] = {}
        self.counters = Counters()
        self.stop_rule: StopRule | None = None
        """How the daemon that opened the ledger last stops trees; None before the first said."""
        self.paused: str | None = None
        """Why nothing new is dispatched; None while dispatching goes on."""
        self.seq = 0

    @classmethod
    def replay(cls, snapshot: bytes | None, facts: Iterable[Recorded]) -> "Registry":
        """Rebuild the state from the newest snapshot and the facts after it."""
        registry = cls()
        if snapshot is not None:
            stored = msgspec.json.decode(snapshot, type=Snapshot)
            registry.issues = stored.issues
            registry.handoffs = stored.handoffs
            registry.counters = stored.counters
            registry.stop_rule = stored.stop_rule
            registry.paused = stored.paused
            registry.seq = stored.seq
        for recorded in facts:
            draft = Draft(registry)
            draft.add(recorded.fact, recorded.at)
            registry.accept(draft, recorded.seq)
        return registry

    def snapshot(self) -> bytes:
        """Return the state in the form `replay` takes."""
        return msgspec.json.encode(
            Snapshot(
                seq=self.seq,
                issues=self.issues,
                handoffs=self.handoffs,
                counters=self.counters,
                stop_rule=self.stop_rule,
                paused=self.paused,
            )
        )

    def issue(self, key: str) -> IssueRecord | None:
        """Return what is known of an issue, by any spelling of its key."""
        return self.issues.get(same_issue(key))

    def accept(self, draft: "Draft", seq: int) -> None:
        """Make a draft's state this one's, its facts being committed up to number `seq`."""
        self.issues.update(draft.issues.maps[0])
        for run, handoff in draft.handoffs.maps[0].items():
            if handoff is None:
                self.handoffs.pop(run, None)
            else:
                self.handoffs[run] = handoff
        self.counters = draft.counters
        self.stop_rule = draft.stop_rule
        self.paused = draft.paused
        self.seq = seq

    def forget(self, key: str) -> None:
        """Drop a finished issue whose retention has ended."""
        self.issues.pop(same_issue(key), None)


class _Layers(ChainMap[str, T]):
    """What was changed over what was there: asked several times for each fact, so without detours."""

    @override
    def __contains__(self, key: object) -> bool:
        changed, base = self.maps
        return key in changed or key in base


class Draft:
    """A registry with facts not yet committed laid over it."""

    def __init__(self, base: Registry) -> None:
        self.issues: ChainMap[str, IssueRecord] = _Layers({}, base.issues)
        handoffs: dict[str, HandoffRecord | None] = dict(base.handoffs)
        self.handoffs: ChainMap[str, HandoffRecord | None] = _Layers({}, handoffs)
        self.counters = base.counters
        self.stop_rule = base.stop_rule
        self.paused = base.paused

    def fork(self) -> "Draft":
        """Return a draft over this one, which is worth keeping only if all its facts are legal."""
        other = copy(self)
        other.issues = self.issues.copy()
        other.handoffs = self.handoffs.copy()
        return other

    def add(self, fact: AnyFact, at: float) -> Entry:
        """Check a fact against the state and fold it in; raise `IllegalFact` and change nothing.

        Returns the fact as the store takes it: with the names it takes and frees.
        """
        match fact:
            case DaemonStarted() | DaemonStopped():
                return Entry(at=at, fact=fact)
            case ConfigurationLoaded():
                self.stop_rule = StopRule(policy=fact.stop, grace_s=fact.grace_s)
                return Entry(at=at, fact=fact)
            case FactoryPaused() | FactoryResumed():
                return self._pause_or_resume(fact, at)
            case IssueClaimed() | IssueEscalated():
                return self._open(fact, at)
            case _:
                return self._change(fact, at)

    def _pause_or_resume(self, fact: FactoryPaused | FactoryResumed, at: float) -> Entry:
        pauses = isinstance(fact, FactoryPaused)
        if pauses is (self.paused is not None):
            raise IllegalFact(f"dispatching is {'paused already' if pauses else 'not paused'}")
        self.paused = fact.reason if isinstance(fact, FactoryPaused) else None
        return Entry(at=at, fact=fact)

    def _open(self, fact: IssueClaimed | IssueEscalated, at: float) -> Entry:
        old = self.issues.get(same_issue(fact.issue))
        state = next_state(old.state if old else None, fact)
        self._put(
            IssueRecord(
                issue=fact.work,
                state=state,
                since=at,
                repo=fact.repo if isinstance(fact, IssueClaimed) else "",
                recipe=fact.recipe if isinstance(fact, IssueClaimed) else "",
                reason=None if isinstance(fact, IssueClaimed) else fact.reason,
            )
        )
        return Entry(at=at, fact=fact)

    def _change(self, fact: AnyFact, at: float) -> Entry:
        old = self.issues.get(same_issue(fact.issue))
        if old is None:
            raise IllegalFact(f"{fact.issue}: no such issue in the ledger")
        state = next_state(old.state, fact)
        since = at if state is not old.state else old.since
        record = replace(old, state=state, since=since)
        entry = Entry(at=at, fact=fact)
        match fact:
            case AttemptStarted():
                record = self._begin_attempt(record, fact, at)
                entry = replace(entry, takes=f"attempt:{same_issue(fact.issue)}")
            case AttemptEnded():
                record = self._end_attempt(record, fact)
                entry = replace(entry, frees=f"attempt:{same_issue(fact.issue)}")
            case RunStarting():
                record = self._begin_run(record, fact, at)
                entry = replace(entry, takes=f"agent:{fact.agent}")
            case RunStarted() | RunExited() | HandoffMade():
                record = self._move_run(record, fact, at)
            case RunEmptied():
                entry = replace(entry, frees=f"agent:{_live_run(record, fact.run).agent}")
                record = self._move_run(record, fact, at)
            case HandoffCleared():
                entry = replace(entry, frees=self._clear_handoff(fact))
            case _:
                record = self._turn(record, fact)
        self._put(record)
        return entry

    def _turn(self, record: IssueRecord, fact: AnyFact) -> IssueRecord:
        match fact:
            case IssueLeftReady():
                return replace(record, left_ready=True)
            case IssueReopened():
                return IssueRecord(
                    issue=record.issue, state=record.state, since=record.since, reason=fact.reason
                )
            case StageStarted():
                return replace(record, round=fact.round, stage=fact.stage)
            case OutcomeWritten() | OutcomeWithheld():
                return self._settle(record, fact)
            case IssueFrozen() | IssueThawed():
                return freeze_or_thaw(record, fact)
            case IssueStopping():
                _check_unwritten(record)
                self._count_end(self.issues[same_issue(fact.issue)].state, -1)
                asked = replace(thawed(record), reason=fact.reason, not_before=None)
                return replace(asked, ends_as=fact.outcome)
            case IssueDone() | IssueParked() | IssueCancelled():
                return self._end(record, fact, self.issues[same_issue(fact.issue)])
            case _:
                return self._note(record, fact)

    def _note(self, record: IssueRecord, fact: AnyFact) -> IssueRecord:
        match fact:
            case IssueRerouted():
                return self._reroute(record, fact)
            case NameCollided():
                return self._collide(record, fact)
            case _:
                raise AssertionError(fact)

    def _end(
        self, record: IssueRecord, fact: IssueDone | IssueParked | IssueCancelled, old: IssueRecord
    ) -> IssueRecord:
        if old.state is IssueState.STOPPING and record.state is not old.ends_as:
            raise IllegalFact(f"{fact.issue}: it is to end as {old.ends_as}")
        if record.live_runs or record.attempt_open:
            raise IllegalFact(f"{fact.issue}: its attempt has not ended")
        self._count_end(record.state, 1)
        return replace(thawed(record), reason=fact.reason, not_before=None)

    def _count_end(self, end: IssueState, more: int) -> None:
        if end in {IssueState.DONE, IssueState.PARKED}:
            self._count(**{end.value: more})

    def _settle(self, record: IssueRecord, fact: OutcomeWritten | OutcomeWithheld) -> IssueRecord:
        _check_unwritten(record)
        if fact.outcome is not record.state:
            raise IllegalFact(f"{fact.issue}: it has not ended as {fact.outcome}")
        if isinstance(fact, OutcomeWritten):
            return replace(record, written=True)
        told = f"{record.reason}; " if record.reason else ""
        reason = f"{told}its outcome is not written back: {fact.reason}"
        return replace(record, written=True, reason=reason)

    def _reroute(self, record: IssueRecord, fact: IssueRerouted) -> IssueRecord:
        if record.attempt:
            raise IllegalFact(f"{fact.issue}: an attempt at it has begun")
        return replace(
            record, issue=fact.work, repo=fact.repo, recipe=fact.recipe, reason=fact.reason
        )

    def _collide(self, record: IssueRecord, fact: NameCollided) -> IssueRecord:
        if record.collisions.get(fact.agent) == fact.holder:
            raise IllegalFact(f"{fact.issue}: that {fact.holder} has the name is known already")
        self._count(name_collisions=1)
        return replace(record, collisions={**record.collisions, fact.agent: fact.holder})

    def _begin_attempt(self, record: IssueRecord, fact: AttemptStarted, at: float) -> IssueRecord:
        if record.attempt_open or fact.attempt != record.attempts_used + 1:
            raise IllegalFact(f"{fact.issue}: attempt {fact.attempt} is not the next one")
        self._count(dispatched=int(record.attempt == 0))
        return replace(
            record,
            attempt=fact.attempt,
            attempt_open=True,
            attempt_since=at,
            round=1,
            stage=0,
            runs={},
            not_before=None,
            reason=None,
        )

    def _end_attempt(self, record: IssueRecord, fact: AttemptEnded) -> IssueRecord:
        if not record.attempt_open or fact.attempt != record.attempt:
            raise IllegalFact(f"{fact.issue}: attempt {fact.attempt} is not the one running")
        if record.live_runs:
            raise IllegalFact(f"{fact.issue}: attempt {fact.attempt} still has live runs")
        deferred = fact.result is AttemptResult.DEFERRED
        self._count(failed=int(fact.result is AttemptResult.FAILED))
        return replace(
            record,
            attempt_open=False,
            attempts_used=record.attempts_used + (not deferred),
            deferrals=record.deferrals + deferred,
            not_before=fact.not_before,
            reason=fact.reason,
        )

    def _begin_run(self, record: IssueRecord, fact: RunStarting, at: float) -> IssueRecord:
        before = record.runs.get(fact.agent)
        if not record.attempt_open or (before is not None and before.live):
            raise IllegalFact(f"{fact.issue}: {fact.agent} has a live run already")
        if record.frozen:
            raise IllegalFact(f"{fact.issue}: {fact.agent} cannot start while the issue is frozen")
        check_name_free(fact.agent, self.issues, self.handoffs)
        self._count(resumed=int(fact.resumes > 0))
        run = RunRecord(
            run=fact.run,
            agent=fact.agent,
            role=fact.role,
            place=fact.place,
            resumes=fact.resumes,
            round=record.round,
            stage=record.stage,
            session=fact.session,
            since=at,
        )
        return replace(record, runs={**record.runs, fact.agent: run})

    def _move_run(self, record: IssueRecord, fact: RunFact, at: float) -> IssueRecord:
        run = move_run(_live_run(record, fact.run), fact, at)
        record = replace(record, runs={**record.runs, run.agent: run})
        if isinstance(fact, HandoffMade):
            self.handoffs[fact.run] = HandoffRecord(
                place=run.place, identity=run.identity, reason=fact.reason, since=at
            )
        if not isinstance(fact, RunEmptied):
            return record
        peak = max(record.peak_processes, fact.receipt.peak_processes or 0)
        cpu_s = record.cpu_s + (fact.receipt.cpu_s or 0.0)
        return replace(record, cpu_s=cpu_s, peak_processes=peak)

    def _clear_handoff(self, fact: HandoffCleared) -> str:
        handoff = self.handoffs.get(fact.run)
        if handoff is None:
            raise IllegalFact(f"{fact.issue}: run {fact.run} is not handed off")
        self.handoffs[fact.run] = None
        self._count(reaped=1)
        return f"agent:{handoff.place.agent}"

    def _count(self, **more: int) -> None:
        if any(more.values()):
            raised = {name: getattr(self.counters, name) + n for name, n in more.items()}
            self.counters = replace(self.counters, **raised)

    def _put(self, record: IssueRecord) -> None:
        self.issues[same_issue(record.issue.key)] = record


def _check_unwritten(record: IssueRecord) -> None:
    if record.written:
        raise IllegalFact(f"{record.issue.key}: its outcome is written back already")


def _live_run(record: IssueRecord, run_id: RunId) -> RunRecord:
    for run in record.live_runs:
        if run.run == run_id:
            return run
    raise IllegalFact(f"{record.issue.key}: run {run_id} is not live")
