"""The daemon dies at every place between two facts, and the next one ends what it began.

A life is what can become of an issue. Each is lived with a daemon that is killed around the commit
of one of its facts, and then with one that is not: the outcome is that of a life without a death.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from signal import SIGKILL

import msgspec
import pytest
import trio

from factoryd.adapters.sqlite_store import SqliteStore
from factoryd.core.events import (
    KINDS,
    AnyFact,
    AttemptEnded,
    AttemptStarted,
    ConfigurationLoaded,
    DaemonStarted,
    DaemonStopped,
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
    RunEmptied,
    RunExited,
    RunStarted,
    RunStarting,
    StageStarted,
    kind_of,
)
from factoryd.core.registry import Registry
from tests.system.daemons import WITHIN_S, CallFailed, Daemon, Place, a_place

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(180)]

AT_ONCE = 3
"""Places that are tried side by side: a daemon's life is mostly waiting."""

LABEL = """
exec 9>>../lock-$FACTORY_AGENT
flock -n -E 99 9 || [ $? -ne 99 ] || echo $FACTORY_RUN >>../overlaps
echo $FACTORY_AGENT $FACTORY_ATTEMPT $FACTORY_ROUND $FACTORY_RUN >>../starts
"""
"""What every agent does first: a run that begins before another of its agent is gone is noted."""

CONFIG = """
[protect]
commands = ["keepme"]

[recipes.pair]
stages = [["worker"], ["reviewer"]]

[agents.reviewer]
kind = "command"
name = "r"
command = ["/bin/sh", "-eu", "{issue_file}"]
"""


Person = Callable[[Daemon, Counter[str]], Awaitable[object]]
"""Who does something about what has happened so far: how often each kind of fact."""


async def nobody(daemon: Daemon, kinds: Counter[str]) -> None:
    """Leave the daemon to itself."""


def has_started(place: Place) -> bool:
    """Say whether an agent has noted that it runs."""
    starts = place.root / "starts"
    return starts.exists() and starts.stat().st_size > 0


async def kill_it(daemon: Daemon, kinds: Counter[str]) -> None:
    """Kill the issue once its agent runs, and again if a daemon forgot."""
    if has_started(daemon.place):
        await daemon.call("Kill", targets=["A-1"])


async def release_it(daemon: Daemon, kinds: Counter[str]) -> None:
    """Release the issue once its agent runs, and again if a daemon forgot."""
    if has_started(daemon.place):
        await daemon.call("Release", target="A-1")


async def put_it_away(daemon: Daemon, kinds: Counter[str]) -> None:
    """Move the file of the issue to where those lie that are done, once its agent runs."""
    if has_started(daemon.place):
        issues = daemon.place.root / "issues"
        (issues / "active" / "A-1.md").rename(issues / "done" / "A-1.md")


async def kill_it_late(daemon: Daemon, kinds: Counter[str]) -> None:
    """Kill the issue when it is done, which cannot be written back before that is recorded."""
    if kinds["issue-stopping"]:
        with suppress(FileNotFoundError):
            (daemon.place.root / IN_THE_WAY).rmdir()
    elif kinds["issue-done"]:
        await daemon.call("Kill", targets=["A-1"], wait=False)
    if kinds["outcome-written"] and kinds["issue-left-ready"]:
        await daemon.call("Shutdown")


async def let_go(daemon: Daemon, kinds: Counter[str]) -> None:
    """End what is protected once it is handed off; when it is reaped, that was all."""
    if kinds["handoff-made"]:
        (daemon.place.root / "released").touch()
    if kinds["handoff-cleared"] and kinds["outcome-written"]:
        await daemon.call("Shutdown")


async def let_go_of_the_name(daemon: Daemon, kinds: Counter[str]) -> None:
    """End what is protected only once its name was missed."""
    if kinds["name-collided"]:
        await let_go(daemon, kinds)


async def freeze_and_thaw(daemon: Daemon, kinds: Counter[str]) -> None:
    """Freeze the issue once its agent runs, thaw it, and let the agent end."""
    if kinds["issue-thawed"]:
        (daemon.place.root / "thawed").touch()
    elif kinds["issue-frozen"]:
        await daemon.call("Thaw", target="A-1")
    elif kinds["run-started"]:
        await daemon.call("Freeze", target="A-1")


async def pause_and_resume(daemon: Daemon, kinds: Counter[str]) -> None:
    """Pause once the agent runs, resume, then let it end; what was forgotten is done again."""
    if kinds["factory-resumed"]:
        (daemon.place.root / "resumed").touch()
    elif kinds["factory-paused"]:
        await daemon.call("Resume")
    elif kinds["run-started"]:
        await daemon.call("Pause")


async def change_once_claimed(place: Place) -> None:
    """Have a daemon die as soon as it has claimed the issue, and give that another recipe."""
    assert (await place.run("--once", FACTORYD_FAULT="die-after:issue-claimed")).returncode < 0
    file = place.ready / "A-1.md"
    file.write_text(file.read_text().replace("title:", "recipe: pair\ntitle:"))


async def leave(place: Place) -> None:
    """Begin with the issue, and nothing else."""


async def bring_back(daemon: Daemon, kinds: Counter[str]) -> None:
    """Move the issue back to ready, once, when it is done and known to have left."""
    place, moved = daemon.place, daemon.place.root / "moved"
    if kinds["outcome-written"] == kinds["issue-left-ready"] == 2:
        await daemon.call("Shutdown")
    if kinds["outcome-written"] and kinds["issue-left-ready"] and not moved.exists():
        moved.touch()
        (place.root / "issues" / "done" / "A-1.md").rename(place.ready / "A-1.md")


async def attend(daemon: Daemon, person: Person) -> None:
    """Have a person look at a daemon, and act, again and again; it may die meanwhile."""
    while True:
        with suppress(OSError, EOFError, trio.BrokenResourceError, CallFailed):
            facts = (await daemon.call("Events"))["facts"]
            await person(daemon, Counter(fact["kind"] for fact in facts))
        await trio.sleep(0.02)


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an issue: the facts it leaves, and all that a person could see of it."""

    script: str
    facts: dict[type, int]
    """Every kind of fact it takes, and how often."""
    visits: dict[type, tuple[int, ...]]
    """Around which of them its daemon is killed; the rest is as in other lives."""
    starts: tuple[str, ...] = ("a-1-w 1 1",)
    """Agent, attempt and round of every run, in order."""
    attempts: tuple[str, ...] = ("succeeded",)
    ends_in: str = "done"
    state: str = "done"
    person: Person = nobody
    arguments: tuple[str, ...] = ("--once",)
    before: Callable[[Place], Awaitable[None]] = leave
    more: dict[str, str] = {}
    sections: dict[str, str] = {}


RUN = (RunStarting, RunStarted, RunExited, RunEmptied)
ATTEMPT = (AttemptStarted, StageStarted, AttemptEnded)
DAEMON = (DaemonStarted, ConfigurationLoaded, DaemonStopped)
ORDINARY = (*DAEMON, IssueClaimed, IssueLeftReady, *ATTEMPT, *RUN, IssueDone, OutcomeWritten)
"""The facts of an issue that is done by the first run of its first attempt: one of each."""


def ordinary(but: Mapping[int, Iterable[type]]) -> dict[type, int]:
    """Return the facts of an ordinary life, but for those kinds of which it has another number."""
    other = {kind: number for number, kinds in but.items() for kind in kinds}
    numbers: dict[type, int] = dict.fromkeys(ORDINARY, 1) | other
    return {kind: number for kind, number in numbers.items() if number}


def around(*kinds: type, numbers: tuple[int, ...] = (1,)) -> dict[type, tuple[int, ...]]:
    """Return where to die: around the facts of these kinds with these numbers."""
    return dict.fromkeys(kinds, numbers)


IN_THE_WAY = "issues/done/A-1.md.outcome.json"

KEEP = """
ln -s /bin/sh ../keepme
../keepme -c 'until [ -e ../released ]; do sleep 0.05; done' 9>&- &
until [ "$(cat /proc/$!/comm)" = keepme ]; do sleep 0.01; done
"""
"""Leave a protected process behind, which it is by its name."""

LIVES = {
    "reviewed": Life(
        script="[ $FACTORY_ROLE$FACTORY_ROUND = reviewer1 ] && exit 10; exit 0",
        more={"recipe": "pair"},
        facts=ordinary({4: (StageStarted, *RUN)}),
        visits=around(*RUN, numbers=(2, 4))
        | around(StageStarted, numbers=(2, 3))
        | around(DaemonStarted, ConfigurationLoaded, IssueClaimed, AttemptStarted)
        | around(AttemptEnded, IssueDone, OutcomeWritten, IssueLeftReady, DaemonStopped),
        starts=("a-1-w 1 1", "a-1-r 1 1", "a-1-w 1 2", "a-1-r 1 2"),
    ),
    "resumed": Life(
        script="[ -e ../again ] && exit 0; touch ../again; exit 3",
        sections={"resume": 'max_resumes = 1\ndelay = "20ms"'},
        facts=ordinary({2: RUN}),
        visits=around(*RUN, numbers=(1, 2)),
        starts=("a-1-w 1 1", "a-1-w 1 1"),
    ),
    "parked": Life(
        script="exit 1",
        sections={"dispatch": "max_attempts = 2"},
        facts=ordinary({0: (IssueDone,), 1: (IssueParked,), 2: (*ATTEMPT, *RUN)}),
        visits={AttemptStarted: (2,), AttemptEnded: (1, 2), IssueParked: (1,)},
        starts=("a-1-w 1 1", "a-1-w 2 1"),
        attempts=("failed", "failed"),
        ends_in="failed",
        state="parked",
    ),
    "deferred": Life(
        script="[ -e ../again ] && exit 0; touch ../again; exit 75",
        facts=ordinary({2: (*ATTEMPT, *RUN)}),
        visits={AttemptStarted: (2,), AttemptEnded: (1,)},
        starts=("a-1-w 1 1", "a-1-w 1 1"),
        attempts=("deferred", "succeeded"),
    ),
    "killed": Life(
        script="sleep 600",
        person=kill_it,
        facts=ordinary({0: (RunExited, IssueDone), 1: (IssueStopping, IssueCancelled)}),
        visits=around(RunStarted, IssueStopping, RunEmptied, AttemptEnded, IssueCancelled),
        attempts=("cancelled",),
        ends_in="cancelled",
        state="cancelled",
    ),
    "released": Life(
        script="sleep 600",
        person=release_it,
        facts=ordinary({0: (RunExited,), 1: (IssueStopping,)}),
        visits=around(IssueStopping, RunEmptied, IssueDone, OutcomeWritten),
        starts=("a-1-w 1 1",),
        attempts=("cancelled",),
        ends_in="done",
        state="done",
    ),
    "put away": Life(
        script="sleep 600",
        person=put_it_away,
        facts=ordinary({0: (RunExited,), 1: (IssueStopping,)}),
        visits=around(IssueStopping, AttemptEnded, IssueDone, OutcomeWritten),
        starts=("a-1-w 1 1",),
        attempts=("cancelled",),
        ends_in="done",
        state="done",
    ),
    "withdrawn": Life(
        script=f"mkdir ../{IN_THE_WAY}",
        person=kill_it_late,
        arguments=(),
        facts=ordinary({1: (IssueStopping, IssueCancelled)}),
        visits=around(IssueStopping, IssueCancelled),
        starts=("a-1-w 1 1",),
        attempts=("succeeded",),
        ends_in="cancelled",
        state="cancelled",
    ),
    "escalated": Life(
        script="exit 0",
        more={"repo": "nowhere"},
        facts=dict.fromkeys((*DAEMON, IssueEscalated), 1),
        visits=around(IssueEscalated, DaemonStopped),
        starts=(),
        attempts=(),
        ends_in="ready",
        state="escalated",
    ),
    "reopened": Life(
        script="exit 0",
        person=bring_back,
        arguments=(),
        facts=ordinary({1: (IssueReopened,), 2: set(ORDINARY) - set(DAEMON)}),
        visits={IssueReopened: (1,), IssueClaimed: (2,), IssueLeftReady: (2,)},
        starts=("a-1-w 1 1", "a-1-w 1 1"),
        attempts=("succeeded", "succeeded"),
    ),
    "handed off": Life(
        script=KEEP,
        person=let_go,
        arguments=(),
        facts=ordinary({0: (RunEmptied,), 1: (HandoffMade, HandoffCleared)}),
        visits=around(RunExited, HandoffMade, HandoffCleared),
    ),
    "collided": Life(
        script=f"{KEEP}exit 1",
        sections={"dispatch": "max_attempts = 2"},
        person=let_go_of_the_name,
        arguments=(),
        facts=ordinary(
            {
                0: (RunEmptied, IssueDone),
                1: (HandoffMade, HandoffCleared, NameCollided, IssueParked),
                2: ATTEMPT,
            }
        ),
        visits=around(NameCollided),
        attempts=("failed", "failed"),
        ends_in="failed",
        state="parked",
    ),
    "frozen": Life(
        script="until [ -e ../thawed ]; do sleep 0.02; done",
        person=freeze_and_thaw,
        facts=ordinary({1: (IssueFrozen, IssueThawed)}),
        visits=around(IssueFrozen, IssueThawed),
    ),
    "paused": Life(
        script="until [ -e ../resumed ]; do sleep 0.02; done",
        person=pause_and_resume,
        facts=ordinary({1: (FactoryPaused, FactoryResumed)}),
        visits=around(FactoryPaused, FactoryResumed),
    ),
    "rerouted": Life(
        script="exit 0",
        before=change_once_claimed,
        facts=ordinary(
            {1: (IssueRerouted,), 2: (DaemonStarted, ConfigurationLoaded, StageStarted, *RUN)}
        ),
        visits=around(IssueRerouted),
        starts=("a-1-w 1 1", "a-1-r 1 1"),
    ),
    "withheld": Life(
        script="sed -i 's/^labels: .*//' ../issues/active/A-1.md",
        more={"labels": "[yes]"},
        sections={"safety": 'require_label = "yes"'},
        facts=ordinary({0: (OutcomeWritten,), 1: (OutcomeWithheld,)}),
        visits=around(OutcomeWithheld),
        ends_in="active",
    ),
}

UNVISITED: dict[type, str] = {}
"""Kinds of facts around which no daemon of these tests dies, and why not."""

MAY_REPEAT = {DaemonStarted, ConfigurationLoaded, DaemonStopped, *RUN}
"""A daemon's death adds a daemon, and a run where one was recorded and had not begun."""

WITHOUT_CGROUPS = {
    "resumed": RUN,
    "killed": (RunStarted, IssueStopping, RunEmptied),
    "handed off": (HandoffMade,),
    "frozen": (IssueFrozen,),
}
"""Where it matters how processes are kept together; the first fact of each kind will do there."""


def places() -> Iterator[tuple[str, str, type]]:
    """Yield the containment, the life and the kind of fact of every test."""
    for name, life in LIVES.items():
        for kind in life.visits:
            yield "cgroup", name, kind
        for kind in WITHOUT_CGROUPS.get(name, ()):
            yield "subreaper", name, kind


def test_a_daemon_dies_around_every_kind_of_fact():
    visited = {kind for life in LIVES.values() for kind in life.visits}
    assert visited.isdisjoint(UNVISITED)
    assert visited | set(UNVISITED) == set(KINDS)


async def test_a_fault_that_does_not_exist_stops_the_start_before_anything_is_made():
    with a_place() as place:
        run = await place.run(FACTORYD_FAULT="die-before:lunch")
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1
        assert "FACTORYD_FAULT=die-before:lunch: unknown" in run.stderr
        assert not place.state.exists()


@pytest.mark.parametrize("name", LIVES)
async def test_a_life_without_a_death_has_the_facts_that_are_listed(name):
    life = LIVES[name]
    with a_life("cgroup", life) as place:
        await life.before(place)
        check(place, life, await one_daemon(place, life))
        assert Counter(map(type, facts_of(place))) == life.facts


@pytest.mark.parametrize(
    ("containment", "name", "kind"),
    [pytest.param(*one, id=f"{one[0]}-{one[1]}-{kind_of(one[2])}") for one in places()],
)
async def test_a_daemon_that_dies_between_two_facts_costs_nothing(containment, name, kind):
    life = LIVES[name]
    failures: dict[str, Exception] = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def die_there(fault: str) -> None:
        try:
            async with limit:
                with a_life(containment, life) as place:
                    await life.before(place)
                    died = await one_daemon(place, life, FACTORYD_FAULT=fault)
                    assert died == -SIGKILL, f"not reached, the daemon ended with {died}"
                    check(place, life, await one_daemon(place, life))
        except Exception as error:  # noqa: BLE001  all places are tried, then all failures told
            failures[fault] = error

    async with trio.open_nursery() as nursery:
        for number in life.visits[kind][: None if containment == "cgroup" else 1]:
            for act in ("die-before", "die-after"):
                nursery.start_soon(die_there, f"{act}:{kind_of(kind)}:{number}")
    for fault, error in failures.items():
        error.add_note(f"the daemon was to die at {fault}")
    if failures:
        raise ExceptionGroup(", ".join(failures), list(failures.values()))


@contextmanager
def a_life(containment: str, life: Life) -> Iterator[Place]:
    """Make a place with one issue."""
    factory = f'containment = "{containment}"'
    with a_place(factory=factory, stop='grace = "50ms"', agents=CONFIG, **life.sections) as place:
        place.put("A-1", LABEL + life.script, **life.more)
        yield place


async def one_daemon(place: Place, life: Life, **environment: str) -> int:
    """Run a daemon to its end, with whoever deals with it, and return its exit status."""
    daemon = await place.start(*life.arguments, **environment)
    try:
        async with trio.open_nursery() as nursery:
            if life.person is not nobody:
                nursery.start_soon(attend, daemon, life.person)
            status = await daemon.wait(4 * WITHIN_S)
            nursery.cancel_scope.cancel(reason="the daemon has ended")
        return status
    finally:
        with trio.CancelScope(shield=True):
            if daemon.process.returncode is None:
                daemon.process.kill()
            await daemon.process.wait()


def facts_of(place: Place) -> list[AnyFact]:
    """Return all facts that were ever committed here."""
    store = SqliteStore(place.state / "ledger.sqlite", read_only=True)
    try:
        return [one.fact for one in store.read_facts(0, 10_000, None)]
    finally:
        store.close()


def check(place: Place, life: Life, status: int) -> None:
    """Compare what is left with what a life without a death leaves."""
    assert not place.cgroup.exists(), "cgroups are left"
    check_files(place, life)
    check_ledger(place, life)
    kinds = list(map(type, facts_of(place)))
    at_last = kinds[-1 - kinds[::-1].index(DaemonStarted) :]
    for_people = "--once" in life.arguments and {IssueParked, IssueEscalated} & set(at_last)
    assert status == int(bool(for_people)), place.log


def check_files(place: Place, life: Life) -> None:
    """Look at what agents and the source have on disk."""
    overlaps, starts = place.root / "overlaps", place.root / "starts"
    assert not overlaps.exists(), f"an agent ran twice at once: {overlaps.read_text()}"
    started = starts.read_text().splitlines() if starts.exists() else []
    assert tuple(line.rpartition(" ")[0] for line in started) == life.starts, place.log
    assert len({line.split()[-1] for line in started}) == len(started), started
    (file,) = place.root.glob("issues/*/A-1.md")
    assert file.parent.name == life.ends_in
    outcomes = list(place.root.glob("issues/*/A-1.md.outcome.json"))
    assert [path.parent.name for path in outcomes] == [life.ends_in] * (
        OutcomeWritten in life.facts
    )
    for path in outcomes:
        assert json.loads(path.read_text())["state"] == life.state


def check_ledger(place: Place, life: Life) -> None:
    """Replay every fact: all are legal, and together they say what became of the issue."""
    store = SqliteStore(place.state / "ledger.sqlite")
    try:
        replayed = Registry.replay(None, store.read_facts(0, 10_000, None))
        stored = Registry.replay(*store.load())
    finally:
        store.close()
    assert replayed.issues == stored.issues
    assert replayed.handoffs == stored.handoffs == {}
    record = replayed.issues["a-1"]
    assert record.state == life.state
    assert record.live_runs == ()
    facts = facts_of(place)
    results = tuple(fact.result for fact in facts if isinstance(fact, AttemptEnded))
    assert results == life.attempts, place.log
    counts = Counter(map(type, facts))
    for kind in set(KINDS) - MAY_REPEAT:
        assert counts[kind] == life.facts.get(kind, 0), kind_of(kind)
    assert counts[RunStarting] == counts[RunEmptied] + counts[HandoffMade]
