"""The synchronous core under every order of events: a factory without tasks, played by Hypothesis.

In continuous integration 2,000 lives are played, else fewer; `MODEL_EXAMPLES` says how many.
"""

import os
from collections import Counter
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace
from typing_extensions import override

from factoryd.core.allowed import look_up, may_withdraw, must_be_killable, must_be_retriable
from factoryd.core.errors import FactoryError, IllegalFact, NameTaken
from factoryd.core.events import (
    AnyFact,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
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
    RunResult,
    RunStarted,
    RunStarting,
    StageStarted,
)
from factoryd.core.lifecycle import IN_FLIGHT, TERMINAL
from factoryd.core.model import Exit, Issue, IssueState, Receipt, StopReport
from factoryd.core.policy import (
    Dispatch,
    Ending,
    Escalate,
    NextStep,
    Reopen,
    Skip,
    block_reason,
    classify_exit,
    cooldown_s,
    decide,
    decide_exit,
    hold_reason,
    in_order,
)
from factoryd.core.records import IssueRecord, RunRecord, same_issue
from factoryd.core.registry import Draft, Registry
from tests.unit.configs import SMALL, parse
from tests.unit.samples import identity, issue, one_of_each, place

CONFIG = parse(
    SMALL + '[dispatch]\nmax_attempts = 2\nerror_cooldown = "3s"\n[resume]\nmax_resumes = 1\n'
)
SLOTS = 2
AGENTS = {"A": ("a-b-c", "a-x"), "A-B": ("a-b-c", "a-b-x"), "Y": ("y-x",), "Z": ("z-x", "z-y")}
"""Agents of each issue; two issues have agents that would be called the same."""

RESULTS = (AttemptResult.FAILED, AttemptResult.SUCCEEDED, AttemptResult.DEFERRED)
REPOS = (None, None, None, "no")

ALL_KEYS = sorted(AGENTS)
keys = st.sampled_from(ALL_KEYS)
chances = st.randoms(use_true_random=True)
"""Dice that are drawn once: to draw each throw would take most of the time."""

S = IssueState

UNDER_WAY = frozenset({S.CLAIMED, S.RUNNING, S.COOLDOWN})
END_STATES: dict[type[IssueDone | IssueParked | IssueCancelled], IssueState] = {
    IssueDone: S.DONE,
    IssueParked: S.PARKED,
    IssueCancelled: S.CANCELLED,
}


def found(chance: Random, records: Iterable[IssueRecord]) -> IssueRecord:
    """Return one of some records; a rule that has none to choose from is not played."""
    return chance.choice(sorted(records, key=lambda one: one.issue.key))


class Factory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.registry = Registry()
        self.facts: list[Recorded] = []
        self.commits = [0]
        """How many facts there were after each commit: what a daemon that dies may leave."""
        self.held: set[str] = set()
        self.snapshot: bytes | None = None
        self.snapshot_seq = 0
        self.listed: dict[str, Issue] = {}
        self.runs = 0
        # What the facts alone say, kept apart from the registry.
        self.forget_what_the_facts_say()

    def forget_what_the_facts_say(self) -> None:
        self.claimed: set[str] = set()
        self.collisions: set[tuple[str, str, str]] = set()
        self.ended: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.live: dict[str, str] = {}
        self.owed: dict[str, str] = {}
        self.frozen: set[str] = set()
        self.paused = False
        self.wanted: dict[str, IssueState] = {}
        """What those are to end as that are being stopped."""
        self.unwritten: dict[str, IssueState] = {}
        self.ends: Counter[IssueState | None] = Counter()

    @initialize(listed=st.lists(keys, min_size=1, unique=True))
    def a_source_begins(self, listed):
        for key in listed:
            self.a_source_lists(key, None)

    # ------------------------------------------------------------------ the ledger, in one thread

    def record(self, *facts: AnyFact) -> bool:
        """Check, commit, apply as the ledger does; False when the registry or the store refuses."""
        return self.refusal(*facts) is None

    def refusal(self, *facts: AnyFact) -> IllegalFact | None:
        """Do as `record` and return why it was refused."""
        refused = self._commit(*facts)
        assert refused is None or str(refused), "a refusal without a reason"
        return refused

    def _commit(self, *facts: AnyFact) -> IllegalFact | None:
        draft, held = Draft(self.registry), set(self.held)
        try:
            for fact in facts:
                entry = draft.add(fact, self.now)
                held.discard(entry.frees or "")
                if entry.takes is not None:
                    if entry.takes in held:
                        raise IllegalFact(f"{entry.takes} is held")
                    held.add(entry.takes)
        except IllegalFact as error:
            return error
        self.held = held
        for fact in facts:
            self.facts.append(Recorded(seq=len(self.facts) + 1, at=self.now, fact=fact))
            self._watch(fact)
        self.commits.append(len(self.facts))
        self.registry.accept(draft, len(self.facts))
        return None

    def must(self, *facts: AnyFact) -> None:
        assert self.record(*facts), facts

    def _watch(self, fact: AnyFact) -> None:
        self._watch_issue(fact, same_issue(fact.issue))
        self._watch_end(fact, same_issue(fact.issue))
        self._watch_frozen(fact, same_issue(fact.issue))
        self._watch_run(fact)

    def _watch_issue(self, fact: AnyFact, key: str) -> None:
        match fact:
            case IssueClaimed():
                assert key not in self.ended, "an ended issue was taken without being reopened"
                self.claimed.add(key)
            case IssueDone() | IssueParked() | IssueCancelled():
                self.ended.add(key)
                self.claimed.remove(key)
            case IssueStopping():
                self.ended.discard(key)  # it is ended anew while its outcome is not written
                self.claimed.add(key)
            case IssueReopened():
                self.ended.discard(key)  # or it was escalated, and never began
                self.collisions = {one for one in self.collisions if one[0] != key}
            case NameCollided():
                assert (key, fact.agent, fact.holder) not in self.collisions, "told twice"
                assert fact.agent in [*self.live.values(), *self.owed.values()]
                self.collisions.add((key, fact.agent, fact.holder))
            case AttemptStarted():
                assert key not in self.attempts, "two attempts at one issue"
                assert key not in self.ended
                self.attempts[key] = fact.attempt
            case AttemptEnded():
                del self.attempts[key]
            case _:
                pass

    def _watch_end(self, fact: AnyFact, key: str) -> None:
        match fact:
            case IssueStopping():
                assert fact.withdraws is (key in self.unwritten), (
                    "only what stands not is withdrawn"
                )
                self.ends[self.unwritten.pop(key, None)] -= 1
                self.wanted[key] = fact.outcome
            case IssueDone() | IssueParked() | IssueCancelled():
                end = END_STATES[type(fact)]
                assert self.wanted.pop(key, end) is end, "it was to end as something else"
                self.unwritten[key] = end
                self.ends[end] += 1
            case OutcomeWritten() | OutcomeWithheld():
                assert self.unwritten.pop(key) is fact.outcome
            case IssueReopened():
                assert key not in self.unwritten, "brought back before its outcome was written"
            case FactoryPaused() | FactoryResumed():
                assert self.paused is isinstance(fact, FactoryResumed)
                self.paused = not self.paused
            case _:
                pass

    def _watch_frozen(self, fact: AnyFact, key: str) -> None:
        match fact:
            case IssueFrozen():
                assert key not in self.frozen, "frozen twice"
                self.frozen.add(key)
            case IssueThawed():
                self.frozen.remove(key)
            case IssueStopping() | IssueDone() | IssueParked():
                self.frozen.discard(key)
            case _:
                pass

    def _watch_run(self, fact: AnyFact) -> None:
        match fact:
            case RunStarting():
                assert same_issue(fact.issue) not in self.frozen, "a run of a frozen issue"
                assert fact.agent not in self.live.values(), "two runs of one agent"
                assert fact.agent not in self.owed.values(), "a run beside the tree of an older one"
                self.live[fact.run] = fact.agent
            case RunEmptied():
                del self.live[fact.run]
            case HandoffMade():
                self.owed[fact.run] = self.live.pop(fact.run)
            case HandoffCleared():
                del self.owed[fact.run]
            case _:
                pass

    # ----------------------------------------------------------------------------------- sources

    @rule(key=keys, priority=st.none() | st.integers(1, 2))
    def a_source_lists(self, key, priority):
        self.listed.setdefault(key, issue(key, priority=priority, since=self.now))

    @rule(key=keys)
    def a_source_no_longer_lists(self, key):
        self.listed.pop(key, None)

    @rule(key=keys, labels=st.sampled_from([(), ("factory",)]), repo=st.sampled_from([None, "no"]))
    def a_source_changes(self, key, labels, repo):
        if key in self.listed:
            self.listed[key] = replace(self.listed[key], labels=labels, repo=repo)

    def departures_are_noted(self, chance):
        for key, record in list(self.registry.issues.items()):
            if record.issue.key not in self.listed and not record.left_ready:
                self.must(IssueLeftReady(issue=key))

    # --------------------------------------------------------------------------------- scheduler

    def busy(self) -> int:
        return sum(
            one.state in {S.CLAIMED, S.RUNNING} or bool(one.live_runs)
            for one in self.registry.issues.values()
        )

    def nothing_holds_back(self) -> bool:
        paused = self.registry.paused is not None
        return hold_reason(paused=paused, free_slots=SLOTS - self.busy()) is None

    def what_is_ready_is_looked_at(self, chance):
        for shown in in_order(self.listed.values()):
            record = self.registry.issue(shown.key)
            match decide(shown, record, CONFIG, self.now):
                case Dispatch(repo=repo, recipe=recipe):
                    assert "factory" in shown.labels
                    if self.nothing_holds_back():
                        self.must(
                            IssueClaimed(issue=shown.key, work=shown, repo=repo, recipe=recipe)
                        )
                case Reopen():
                    self.must(IssueReopened(issue=shown.key, reason="it came back"))
                case Escalate(reason=reason):
                    assert reason
                    self.must(IssueEscalated(issue=shown.key, work=shown, reason=reason))
                    assert decide(shown, self.registry.issue(shown.key), CONFIG, self.now) == Skip(
                        issue=shown, reason=reason
                    )
                case Skip(reason=reason):
                    assert reason

    @rule(chance=chances, times=st.integers(1, 4))
    def people_interfere(self, chance, times):
        """Play what people do about issues and about the factory, which works meanwhile."""
        for _ in range(times):
            known = self.unwritten or {one.issue.key for one in self.those(*UNDER_WAY)}
            key = chance.choice(sorted(known or ALL_KEYS) if chance.random() < 0.6 else ALL_KEYS)
            chance.choice(self.people)(self, key.upper(), chance)
            self.the_factory_goes_on(chance, chance.randint(0, 5))

    def an_issue_is_killed_or_released(self, key, chance):
        outcome = chance.choice([S.CANCELLED, S.CANCELLED, S.DONE])
        record = self.registry.issue(key)
        stop = IssueStopping(issue=key, reason="asked", outcome=outcome)
        try:
            waiting = must_be_killable(look_up(key, record, list(self.listed.values())))
        except FactoryError:
            assert key not in self.listed or same_issue(key) in self.ended - self.unwritten.keys()
            assert not self.record(stop)
            assert not self.record(replace(stop, withdraws=True))
            return
        if waiting is not None:
            self.must(IssueClaimed(issue=key, work=waiting, repo="", recipe=""), stop)
            return
        assert record is not None
        if record.state in UNDER_WAY:
            self.must(stop)
        elif may_withdraw(record, outcome):
            self.must(replace(stop, withdraws=True))
        else:
            assert record.state in {S.STOPPING, S.CANCELLED, outcome}, "it ends as was asked first"
            assert not self.record(stop)
            assert not self.record(replace(stop, withdraws=True))

    def a_source_closes(self, key, chance):
        outcome = chance.choice(sorted(TERMINAL))
        record = self.registry.issue(key)
        if record is not None and record.state in IN_FLIGHT | TERMINAL:
            self.listed.pop(key, None)
            stop = IssueStopping(issue=key, reason="closed", outcome=outcome)
            assert self.record(stop) is (record.state in UNDER_WAY)

    def an_issue_is_retried(self, key, chance):
        record = self.registry.issue(key)
        if same_issue(key) in self.unwritten:
            return  # its scope still has it
        again = IssueReopened(issue=key, reason="asked")
        try:
            known = must_be_retriable(look_up(key, record, list(self.listed.values())))
        except FactoryError:
            assert same_issue(key) not in self.ended
            assert not self.record(again)
            return
        self.listed.setdefault(key, known.issue)
        self.must(again)
        assert self.registry.issues[same_issue(key)].attempts_used == 0

    def dispatching_is_paused_or_resumed(self, key, chance):
        resume = chance.random() < (0.9 if self.paused else 0.3)
        fact = FactoryResumed() if resume else FactoryPaused(reason="lunch")
        legal = resume is self.paused
        assert self.record(fact) is legal

    def an_issue_is_frozen_or_thawed(self, key, chance):
        thaw = chance.random() < (0.8 if same_issue(key) in self.frozen else 0.2)
        record = self.registry.issue(key)
        fact = IssueThawed(issue=key) if thaw else IssueFrozen(issue=key, reason="lunch")
        under_way = record is not None and record.state in UNDER_WAY
        legal = under_way and (same_issue(key) in self.frozen) is thaw
        assert self.record(fact) is legal

    people = (
        an_issue_is_killed_or_released,
        an_issue_is_killed_or_released,
        a_source_closes,
        an_issue_is_retried,
        an_issue_is_frozen_or_thawed,
        dispatching_is_paused_or_resumed,
    )

    # -------------------------------------------------------------------------------- one issue

    def those(self, *states: IssueState) -> list[IssueRecord]:
        return [one for one in self.registry.issues.values() if one.state in states]

    def an_attempt_begins(self, chance):
        record = found(chance, self.those(S.CLAIMED, S.COOLDOWN))
        key = record.issue.key
        waits = record.state is S.COOLDOWN
        if waits and block_reason(record, self.now, CONFIG.dispatch.max_attempts) is not None:
            return
        if self.paused or (waits and not self.nothing_holds_back()):
            return
        self.listed.pop(key, None)
        self.must(AttemptStarted(issue=key, attempt=record.attempts_used + 1))
        self.must(StageStarted(issue=key, round=1, stage=0))

    def a_run_begins(self, chance):
        record = found(chance, self.those(S.RUNNING))
        key = record.issue.key
        agent = chance.choice(AGENTS[key])
        last = record.runs.get(agent)
        self.runs += 1
        run = f"{agent}-{self.runs}"
        fact = RunStarting(
            issue=key,
            run=place(run).run,
            agent=agent,
            role="worker",
            place=place(run, key, agent),
            resumes=0 if last is None else last.resumes + 1,
        )
        free = agent not in self.live.values() and agent not in self.owed.values()
        free = free and not record.frozen
        refused = self.refusal(fact)
        assert (refused is None) is free
        if refused is None:
            self.must(RunStarted(issue=key, run=fact.run, identity=identity(self.runs)))
        elif isinstance(refused, NameTaken):
            holder = place(refused.holder).run
            assert {**self.live, **self.owed}[holder] == refused.agent == agent
            known = (same_issue(key), agent, holder) in self.collisions
            told = NameCollided(issue=key, agent=agent, holder=holder, reason=str(refused))
            assert self.record(told) is not known
        else:
            assert record.frozen or (last is not None and last.live), (
                "a run of its own is no collision"
            )

    def a_run_ends(self, chance):
        record = found(chance, [one for one in self.registry.issues.values() if one.live_runs])
        status = chance.choice([0, 1, 10, 75, None])
        key, run = record.issue.key, record.live_runs[0]
        end = Ending(
            exit=run.exit or Exit(status=status),
            stopping=record.state is S.STOPPING,
            resumes=run.resumes,
            max_resumes=CONFIG.resume.max_resumes,
        )
        exited = RunExited(issue=key, run=run.run, exit=end.exit)
        assert self.record(exited) is (run.exit is None), "the first report of an exit counts"
        result = classify_exit(end)
        self._close(key, run, result, emptied=chance.random() < 0.5)
        if decide_exit(end) is NextStep.FAIL and len(record.live_runs) == 1:
            self._end_attempt(key, AttemptResult.FAILED)

    def _close(self, key: str, run: RunRecord, result: RunResult, *, emptied: bool) -> None:
        if emptied:
            report, receipt = StopReport(), Receipt(wall_s=1.0)
            self.must(
                RunEmptied(issue=key, run=run.run, result=result, report=report, receipt=receipt)
            )
        else:
            report = StopReport(survivors=1, emptied=False)
            self.must(
                HandoffMade(issue=key, run=run.run, result=result, report=report, reason="D state")
            )

    def an_attempt_ends(self, chance):
        result = chance.choice(RESULTS)
        self._end_attempt(found(chance, self.those(S.RUNNING)).issue.key, result)

    def _end_attempt(self, key: str, result: AttemptResult) -> None:
        record = self.registry.issues[same_issue(key)]
        n = record.attempt
        ended = AttemptEnded(issue=key, attempt=n, result=result)
        if record.live_runs:
            assert not self.record(ended)
        elif result is AttemptResult.SUCCEEDED:
            self.must(ended, IssueDone(issue=key))
        elif result is AttemptResult.FAILED and n >= CONFIG.dispatch.max_attempts:
            self.must(ended, IssueParked(issue=key, reason="attempts used up"))
        else:
            wait = cooldown_s(n, CONFIG.dispatch, 0.5)
            self.must(replace(ended, not_before=self.now + wait))

    def a_stop_is_finished(self, chance):
        record = found(chance, self.those(S.STOPPING))
        key = record.issue.key
        ended = AttemptEnded(
            issue=key, attempt=record.attempt, result=AttemptResult.CANCELLED, reason="asked"
        )
        before = (ended,) if record.attempt_open else ()
        for kind, end in END_STATES.items():
            if end is not self.wanted[same_issue(key)] or record.live_runs:
                assert not self.record(*before, kind(issue=key, reason="asked"))
        if not record.live_runs:
            kind = next(k for k, end in END_STATES.items() if end is record.ends_as)
            self.must(*before, kind(issue=key, reason="asked"))

    def an_outcome_is_written(self, chance):
        record = found(chance, self.those(*TERMINAL))
        outcome = chance.choice([record.state, record.state, S.DONE])
        right = outcome is record.state and not record.written
        assert self.record(OutcomeWritten(issue=record.issue.key, outcome=outcome)) is right

    def an_outcome_is_withheld(self, chance):
        record = found(chance, [one for one in self.those(*TERMINAL) if not one.written])
        key, outcome = record.issue.key, record.state
        self.must(OutcomeWithheld(issue=key, outcome=outcome, reason="out of scope"))

    def an_issue_is_triaged_anew(self, chance):
        record = found(chance, self.those(S.CLAIMED))
        key, work = record.issue.key, record.issue
        anew = IssueRerouted(issue=key, work=work, repo="other", recipe="pair", reason="changed")
        assert self.record(anew) is (record.attempt == 0), "work that has begun keeps its route"

    @precondition(lambda self: self.owed)
    @rule(chance=chances)
    def the_reaper_proves_a_tree_empty(self, chance):
        run = chance.choice(sorted(self.owed))
        where = self.registry.handoffs[run].place
        self.must(HandoffCleared(issue=where.issue, run=where.run, report=StopReport()))

    @rule(chance=chances, steps=st.integers(5, 25))
    def the_factory_works(self, chance, steps):
        """Play what a factory does by itself, a few steps of it."""
        self.the_factory_goes_on(chance, steps)

    def the_factory_goes_on(self, chance: Random, steps: int) -> None:
        for _ in range(steps):
            possible = [self.what_is_ready_is_looked_at, self.departures_are_noted, self.new_work]
            possible += [move for move, states in self.moves() if self.those(*states)]
            possible += [self.a_run_ends] if self.live else []
            unwritten = any(not one.written for one in self.those(*TERMINAL))
            possible += [self.an_outcome_is_withheld] if unwritten else []
            chance.choice(possible)(chance)

    def new_work(self, chance):
        key = chance.choice(ALL_KEYS)
        self.listed[key] = issue(key, repo=chance.choice(REPOS), since=self.now)

    def a_cooldown_goes_by(self, chance):
        self.now = max(one.not_before or self.now for one in self.those(S.COOLDOWN))

    def moves(self):
        return [
            (self.a_cooldown_goes_by, (S.COOLDOWN,)),
            (self.an_attempt_begins, (S.CLAIMED, S.COOLDOWN)),
            (self.an_issue_is_triaged_anew, (S.CLAIMED,)),
            (self.a_run_begins, (S.RUNNING,)),
            (self.an_attempt_ends, (S.RUNNING,)),
            (self.a_stop_is_finished, (S.STOPPING,)),
            (self.an_outcome_is_written, TERMINAL),
        ]

    # ------------------------------------------------------------------------- time and accidents

    @rule(seconds=st.sampled_from([-5.0, 1.0, 3.3, 10.0]))
    def the_clock_goes_on_or_is_set(self, seconds):
        self.now += seconds

    @rule()
    def a_snapshot_is_taken(self):
        self.snapshot, self.snapshot_seq = self.registry.snapshot(), len(self.facts)

    @rule()
    def the_daemon_dies_and_comes_back(self):
        before = self.registry.snapshot()
        self.registry = Registry.replay(self.snapshot, self.facts[self.snapshot_seq :])
        assert self.registry.snapshot() == before
        self.replay_equals_the_live_state()

    @rule(chance=chances)
    def the_daemon_had_died_earlier(self, chance):
        """Go on from what was committed at some moment, as if nothing had come after it."""
        left = chance.choice(self.commits)
        cut = chance.randint(0, left)
        half = Registry.replay(None, self.facts[:cut]).snapshot()
        self.facts = self.facts[:left]
        self.commits = [n for n in self.commits if n <= left]
        self.registry = Registry.replay(half, self.facts[cut:])
        self.snapshot, self.snapshot_seq = half, cut
        self.forget_what_the_facts_say()
        self.held = set()
        again = Draft(Registry())
        for recorded in self.facts:
            self._watch(recorded.fact)
            entry = again.add(recorded.fact, recorded.at)
            self.held.discard(entry.frees or "")
            self.held |= {entry.takes} if entry.takes is not None else set()

    @rule(key=keys, chance=chances)
    def a_wrong_fact_is_tried(self, key, chance):
        fact = chance.choice(one_of_each(key))
        before, draft = self.registry.snapshot(), Draft(self.registry)
        fork = draft.fork()
        try:
            fork.add(fact, self.now)
        except IllegalFact:
            self.registry.accept(draft, self.registry.seq)
        assert self.registry.snapshot() == before

    # ------------------------------------------------------------------------------- invariants

    def replay_equals_the_live_state(self):
        assert Registry.replay(None, self.facts).snapshot() == self.registry.snapshot()

    @invariant()
    def live_attempts_and_runs_are_what_the_facts_say_and_hold_their_names(self):
        records = self.registry.issues
        assert {key for key, one in records.items() if one.attempt_open} == set(self.attempts)
        live = {run.run: run.agent for one in records.values() for run in one.live_runs}
        assert live == self.live
        owed = {run: one.place.agent for run, one in self.registry.handoffs.items()}
        assert owed == self.owed
        names = {f"attempt:{key}" for key in self.attempts}
        names |= {f"agent:{agent}" for agent in [*live.values(), *owed.values()]}
        assert self.held == names

    @invariant()
    def frozen_is_what_the_facts_say_and_nothing_that_has_ended(self):
        frozen = {key for key, one in self.registry.issues.items() if one.frozen}
        assert frozen == self.frozen
        assert not frozen & self.ended

    @invariant()
    def every_end_is_told_once_and_counted_unless_it_is_withdrawn(self):
        records = self.registry.issues.items()
        ended = {key: one for key, one in records if one.state in TERMINAL}
        unwritten = {key: one.state for key, one in ended.items() if not one.written}
        assert unwritten == self.unwritten
        counters = self.registry.counters
        assert (counters.done, counters.parked) == (self.ends[S.DONE], self.ends[S.PARKED])
        assert (self.registry.paused is not None) is self.paused
        stopping = {key: one.ends_as for key, one in records if one.state is S.STOPPING}
        assert stopping == self.wanted

    @invariant()
    def no_claimed_issue_is_lost(self):
        records = self.registry.issues.items()
        assert {key for key, one in records if one.state in IN_FLIGHT} == self.claimed
        assert self.ended == {key for key, one in records if one.state in TERMINAL}
        assert self.registry.counters.name_collisions >= len(self.collisions)

    @invariant()
    def slots_are_never_exceeded(self):
        assert self.busy() <= SLOTS

    @invariant()
    def no_issue_has_more_attempts_than_allowed(self):
        for record in self.registry.issues.values():
            assert record.attempts_used <= CONFIG.dispatch.max_attempts

    @invariant()
    def only_a_running_or_stopping_issue_has_an_open_attempt(self):
        for record in self.registry.issues.values():
            assert not record.attempt_open or record.state in {S.RUNNING, S.STOPPING}
            assert not record.live_runs or record.attempt_open

    @override
    def teardown(self):
        self.replay_equals_the_live_state()


TestFactory = pytest.mark.timeout(300)(Factory.TestCase)
TestFactory.settings = settings(
    max_examples=int(os.environ.get("MODEL_EXAMPLES", "2000" if "CI" in os.environ else "150")),
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
