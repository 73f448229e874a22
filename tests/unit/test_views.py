"""The pictures that callers see."""

import msgspec
import pytest
import trio

from factoryd.core.events import Recorded, decode_fact
from factoryd.core.model import Containment, IssueState, Problem, Signalled, Skipped, StopReport
from factoryd.core.registry import Registry
from factoryd.flow.preview import preview
from factoryd.flow.pulse import Pulses
from factoryd.flow.views import Birth, Overview, fact_view, find_issue, killed_view, rfc3339
from factoryd.wire.answers import StatusReply
from tests.fakes.clock import EPOCH, TrioClock
from tests.fakes.heartbeat import FakeHeartbeatFile
from tests.fakes.notifier import FakeNotifier
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, REVIEW, configure, factory
from tests.unit.samples import identity, one_of_each, run_emptied

__all__ = ["factory"]

S = IssueState
FOREVER = Program()


def overview_of(daemon, pulses=None):
    pulses = pulses or Pulses(
        settings=daemon.settings,
        identity=identity(7),
        file=FakeHeartbeatFile(),
        notifier=FakeNotifier(),
        clock=TrioClock(),
    )
    birth = Birth(
        pid=7,
        version="1.2",
        started_at=EPOCH,
        adopted_runs=0,
        containment=Containment.CGROUP,
        controllers=("memory", "pids"),
    )
    return Overview(birth, daemon.shop, daemon.scheduler, pulses)


def issue_in(status: StatusReply, key: str):
    (found,) = [one for one in status.issues if one.key == key]
    return found


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000.9999, "2023-11-14T22:13:20.999Z"),
    ],
)
def test_moments_are_rfc_3339_in_utc(moment, text):
    assert rfc3339(moment) == text


async def test_a_running_agent_is_shown_with_what_is_known_of_it_and_null_for_the_rest(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        shown = issue_in(await overview_of(daemon).status(()), "AR-1")
        assert (shown.state, shown.attempt, shown.round, shown.stage) == ("running", 1, 1, 0)
        assert (shown.not_before, shown.reason) == (None, None)
        (agent,) = shown.agents
        assert (agent.name, agent.role, agent.state) == (IMPL, "implementer", "running")
        assert agent.pid is not None
        assert (agent.processes, agent.cpu_s, agent.memory_bytes) == (1, 0.5, 4096)
        assert (agent.session, agent.last_output_at, agent.exit) == (None, None, None)
        daemon.follower.write(IMPL)
        await trio.sleep(1)
        shown = issue_in(await overview_of(daemon).status(()), "AR-1")
        assert shown.agents[0].last_output_at is not None


async def test_an_agent_of_a_stopping_issue_is_stopping_and_an_ended_one_has_no_pid(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[REVIEW] = [Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(REVIEW)
        await daemon.scheduler.kill(["AR-1"], "asked by a test", None)
        await trio.sleep(1)
        shown = issue_in(await overview_of(daemon).status(()), "AR-1")
        done, stopping = shown.agents
        assert (shown.state, shown.reason) == ("stopping", "asked by a test")
        assert (done.state, done.pid, done.exit, done.processes) == ("succeeded", None, 0, None)
        assert done.cpu_s == 0.5, "from its receipt"
        assert stopping.state == "stopping"
        await daemon.wait_state("AR-1", S.CANCELLED)


async def test_promise_10_every_issue_that_is_not_worked_on_says_why(autojump_clock, factory):
    configure(factory, daemon={"slots": 1}, resume={"max_resumes": 0})
    factory.put("AR-1", priority=1)
    factory.put("OUT", labels=())
    factory.put("LOST", repo="nope")
    factory.put("WAITS")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        status = await overview_of(daemon).status(())
        reasons = {one.key: (one.state, one.reason) for one in status.issues}
        assert reasons == {
            "AR-1": ("running", None),
            "OUT": ("ready", "out of scope: it lacks the label 'factory'"),
            "LOST": ("escalated", "no route: it names the repo 'nope', which is unknown"),
            "WAITS": ("ready", "no free slot"),
        }


async def test_a_cooldown_shows_its_reason_and_its_end(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1)]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        shown = issue_in(await overview_of(daemon).status(()), "AR-1")
        assert shown.reason == "ar-1-impl exited with 1"
        assert shown.not_before == rfc3339(daemon.record("AR-1").not_before)


async def test_the_daemon_and_its_sources_are_shown(autojump_clock, factory):
    failing = FakeSource("failing")
    failing.failure = "not mounted"
    factory.sources.append(failing)
    factory.source.problems = [Problem(where="ready/x.md:3", reason="no title")]
    async with factory.daemon() as daemon:
        await trio.sleep(1)
        overview = overview_of(daemon)
        status = await overview.status(())
        shown = {one.name: (one.kind, one.state) for one in status.sources}
        assert shown == {"fake": ("fake", "ok"), "failing": ("fake", "failing")}
        problems = [(one.where, one.reason) for each in status.sources for one in each.problems]
        assert problems == [("ready/x.md:3", "no title"), ("failing", "not mounted")]
        assert status.daemon.degraded == ("source failing",)
        assert (status.daemon.pid, status.daemon.containment) == (7, "cgroup")
        assert status.daemon.controllers == ("memory", "pids")
        assert (status.daemon.slots, status.daemon.free_slots) == (2, 2)
        assert overview.health().state == "degraded"
        said = "starting: issues running: 0, slots free: 2, degraded: source failing"
        assert overview.headline() == said
        failing.failure = None
        await trio.sleep(10)
        assert overview.health().state == "ok"


async def test_a_ledger_that_cannot_write_is_named_as_degraded(autojump_clock, factory):
    async with factory.daemon() as daemon:
        factory.store.refusal = "the disk is full"
        factory.put("AR-1")
        await trio.sleep(5)
        assert overview_of(daemon).degraded() == ("ledger",)
        factory.store.refusal = None
        await daemon.wait_state("AR-1", S.DONE)
        assert overview_of(daemon).degraded() == ()


async def test_handoffs_and_counters_are_shown(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(survivors=(Skipped(pid=99, reason="D state"),))]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "asked", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        status = await overview_of(daemon).status(())
        (handoff,) = status.handoffs
        assert (handoff.agent, handoff.issue) == (IMPL, "AR-1")
        assert handoff.reason == "1 process is left: 99 (D state)"
        assert issue_in(status, "AR-1").agents[0].state == "leaked"
        assert status.counters.dispatched == 1


@pytest.mark.parametrize("target", ["AR-1", "ar-1", IMPL, IMPL.upper()])
async def test_a_target_is_an_issue_in_any_spelling_or_one_of_its_agents(
    autojump_clock, factory, target
):
    factory.put("AR-1")
    factory.put("AR-2")
    daemon = await factory.drain()
    status = await overview_of(daemon).status((target,))
    assert [one.key for one in status.issues] == ["AR-1"]
    found = find_issue(daemon.ledger.registry, target)
    assert found is not None
    assert found.issue.key == "AR-1"
    assert find_issue(daemon.ledger.registry, "AR-9") is None


@pytest.mark.parametrize("fact", one_of_each(), ids=lambda fact: type(fact).__name__)
def test_every_fact_can_be_shown_as_it_is_stored(fact):
    view = fact_view(Recorded(seq=7, at=0.0, fact=fact))
    assert (view.seq, view.at, view.issue) == (7, "1970-01-01T00:00:00.000Z", fact.issue)
    assert decode_fact(bytes(view.body)) == fact
    assert msgspec.json.decode(view.body)["type"] == view.kind
    assert view.run == getattr(fact, "run", None)


def test_a_kill_is_shown_with_whom_it_spared_and_why():
    fact = run_emptied()
    report = StopReport(
        signals=("SIGTERM", "SIGKILL"),
        killed=3,
        signalled=(Signalled(pid=7, signals=("SIGTERM", "SIGKILL")),),
        skipped=(Skipped(pid=1, reason="protected"),),
        survivors=1,
        emptied=False,
        took_s=0.05,
    )
    shown = msgspec.to_builtins(killed_view(IMPL, fact.run, report))
    assert shown == {
        "agent": IMPL,
        "run": fact.run,
        "signals": ("SIGTERM", "SIGKILL"),
        "killed": 3,
        "signalled": ({"pid": 7, "signals": ("SIGTERM", "SIGKILL")},),
        "skipped": ({"pid": 1, "reason": "protected"},),
        "survivors": 1,
        "emptied": False,
        "took_s": 0.05,
    }


# ------------------------------------------------------------------------------------- dry run


async def test_promise_11_a_dry_run_tells_what_would_be_done_and_touches_nothing(
    autojump_clock, factory
):
    failing = FakeSource("failing")
    failing.failure = "not mounted"
    factory.sources.append(failing)
    factory.source.problems = [Problem(where="ready/x.md:3", reason="no title")]
    for n in (1, 2, 3):
        factory.put(f"AR-{n}", priority=n)
    factory.put("OUT", labels=(), priority=8)
    factory.put("LOST", repo="nope", priority=9)
    lines = await preview(factory.sources, Registry(), factory.config, EPOCH)
    assert lines == [
        "ready/x.md:3: no title",
        "source failing: not mounted",
        "AR-1: would be dispatched: repo demo, recipe pair",
        "AR-2: would be dispatched: repo demo, recipe pair",
        "AR-3: would wait: no free slot",
        "OUT: would be left alone: out of scope: it lacks the label 'factory'",
        "LOST: would be escalated: no route: it names the repo 'nope', which is unknown",
    ]
    assert {name for name, _ in factory.source.calls} == {"list_ready"}
    assert factory.facts() == []
    assert factory.workspaces.prepared == []


async def test_a_dry_run_counts_the_slots_that_are_in_use(autojump_clock, factory):
    configure(factory, daemon={"slots": 1})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.put("AR-2")
        known = daemon.ledger.registry
        lines = await preview(factory.sources, known, factory.config, EPOCH)
    assert lines == ["AR-2: would wait: no free slot"]


async def test_a_dry_run_tells_of_work_that_came_back(autojump_clock, factory):
    shown = factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_for(lambda: bool(factory.source.outcomes))
        await trio.sleep(100)
        known = daemon.ledger.registry
    factory.source.put(shown)
    lines = await preview(factory.sources, known, factory.config, EPOCH)
    assert lines == ["AR-1: would be dispatched as new work: it left ready and came back"]
