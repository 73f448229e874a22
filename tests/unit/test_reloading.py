"""A reload: what runs ends as it began, what comes goes by the new configuration."""

import threading

import pytest
import trio
from msgspec.structs import replace

from factoryd.core.errors import ConfigInvalid, FactoryError, LedgerUnavailable
from factoryd.core.events import ConfigurationLoaded, IssueClaimed, IssueEscalated, OutcomeWithheld
from factoryd.core.model import IssueState
from factoryd.flow import reloading
from factoryd.flow.shop import lost_source
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.configs import SMALL, parse
from tests.unit.factories import IMPL, REVIEW, SETTINGS, configure, factory

__all__ = ["factory"]

S = IssueState
FOREVER = Program()
TEN_S = Program(status=0, after_s=10)
NOWHERE = SMALL.replace('label = "factory"', 'label = "elsewhere"')


@pytest.fixture(autouse=True)
def source(factory):
    """The source of the factory, which the file names."""
    factory.sources[:] = [FakeSource("issues")]
    factory.source = factory.sources[0]
    return factory.source


def write(factory, text):
    """Have the file say something else."""
    factory.file = lambda: parse(text + SETTINGS)


def spoil(factory, *mistakes):
    def read():
        raise ConfigInvalid(mistakes)

    factory.file = read


# ------------------------------------------------------------------------- valid and invalid


async def test_rule_11_a_valid_file_is_in_force_and_what_changed_is_told(autojump_clock, factory):
    async with factory.daemon() as daemon:
        configure(factory, stop={"grace": 3.0, "signal": "SIGINT"}, daemon={"slots": 7})
        reply = await daemon.reloader.reload()
        assert reply.changed == ("factory.slots", "stop.signal", "stop.grace")
        assert (reply.restart, reply.mistakes) == ((), ())
        assert daemon.shop.config is factory.config
        assert daemon.shop.slots.free == 7
        assert daemon.notifier.said == ["reloading", "extend 60", "ready"]
        rule = daemon.ledger.registry.stop_rule
        assert (rule.policy.signal, rule.grace_s) == ("SIGINT", 3.0)
    assert [fact.grace_s for fact in factory.of_kind(ConfigurationLoaded)] == [3.0]


async def test_rule_11_of_an_invalid_file_the_mistakes_are_told_and_the_old_one_stays(
    autojump_clock, factory, caplog
):
    async with factory.daemon() as daemon:
        old = daemon.shop.config
        spoil(factory, "f.toml: factory.slots: must be 1 or more", "f.toml: x: is unknown")
        reply = await daemon.reloader.reload()
        assert reply.mistakes == (
            "f.toml: factory.slots: must be 1 or more",
            "f.toml: x: is unknown",
        )
        assert reply.changed == ()
        assert daemon.shop.config is old
        assert daemon.settings.mistakes == reply.mistakes
        assert caplog.text.count("configuration refused: f.toml: x: is unknown") == 1
        assert daemon.notifier.said == ["reloading", "extend 60", "ready"]
        factory.file = lambda: factory.config
        assert (await daemon.reloader.reload()).mistakes == ()
        assert daemon.settings.mistakes == ()
    assert len(factory.of_kind(ConfigurationLoaded)) == 1


async def test_what_waits_for_a_restart_is_told_again_until_there_was_one(autojump_clock, factory):
    async with factory.daemon() as daemon:
        configure(factory, daemon={"containment": "subreaper"})
        reply = await daemon.reloader.reload()
        assert (reply.changed, reply.restart) == (("factory.containment",),) * 2
        reply = await daemon.reloader.reload()
        assert (reply.changed, reply.restart) == ((), ("factory.containment",))


async def test_an_error_inside_factoryd_while_reading_is_a_mistake_and_ends_nothing(
    autojump_clock, factory, caplog
):
    def read():
        raise ZeroDivisionError("a bug")

    factory.file = read
    async with factory.daemon() as daemon:
        (mistake,) = (await daemon.reloader.reload()).mistakes
        assert mistake.startswith("factoryd.toml: an error inside factoryd: ZeroDivisionError")
        assert "Traceback" in caplog.text


async def test_of_very_many_mistakes_the_first_are_told_and_their_number(autojump_clock, factory):
    spoil(factory, *(f"f.toml: k{n}: is unknown" for n in range(5000)))
    async with factory.daemon() as daemon:
        mistakes = (await daemon.reloader.reload()).mistakes
        assert len(mistakes) == 101
        assert mistakes[-1].startswith("factoryd.toml: and 4900 more mistakes: `factoryd check-")


async def test_a_file_that_cannot_be_read_in_time_is_a_mistake(factory, monkeypatch):
    monkeypatch.undo()  # a real thread, and real time
    monkeypatch.setattr(reloading, "READ_S", 0.05)
    hangs = threading.Event()
    factory.file = lambda: hangs.wait() and factory.config
    async with factory.daemon() as daemon:
        for _ in range(2):  # the second waits for the first one's thread
            (mistake,) = (await daemon.reloader.reload()).mistakes
            assert mistake == "factoryd.toml: cannot be read: nothing has come of it for 0.05 s"
        hangs.set()
        monkeypatch.setattr(reloading, "READ_S", 10.0)
        assert (await daemon.reloader.reload()).mistakes == ()


async def test_two_reloads_at_once_come_one_after_the_other(autojump_clock, factory, nursery):
    async with factory.daemon() as daemon:
        for _ in range(2):
            nursery.start_soon(daemon.reloader.reload)
        await trio.sleep(1)
        assert daemon.notifier.said == ["reloading", "extend 60", "ready"] * 2
    assert len(factory.of_kind(ConfigurationLoaded)) == 2


async def test_a_reload_of_a_daemon_that_stops_is_refused(autojump_clock, factory, caplog, nursery):
    async with factory.daemon() as daemon:
        daemon.reloader.closed = True
        with pytest.raises(FactoryError, match="factoryd is stopping"):
            await daemon.reloader.reload()
        nursery.start_soon(daemon.reloader.run)
        daemon.reloader.ask()
        await trio.sleep(1)
        assert "the configuration is not read: factoryd is stopping" in caplog.text
        assert daemon.notifier.said == []


async def test_a_daemon_that_begins_to_stop_while_it_reads_loads_nothing(autojump_clock, factory):
    async with factory.daemon() as daemon:

        def read():
            daemon.reloader.closed = True
            return factory.config

        old, factory.file = daemon.shop.config, read
        configure(factory, daemon={"slots": 9})
        with pytest.raises(FactoryError, match="factoryd is stopping"):
            await daemon.reloader.reload()
        assert daemon.shop.config is old
        assert daemon.notifier.said == ["reloading", "extend 60"], "it is not ready any more"


async def test_while_facts_cannot_be_written_nothing_is_reloaded(autojump_clock, factory):
    async with factory.daemon() as daemon:
        daemon.ledger.trouble = "the disk is full"
        with pytest.raises(LedgerUnavailable, match="the disk is full; until then nothing"):
            await daemon.reloader.reload()
        daemon.ledger.trouble = None


# ------------------------------------------------------------------------------------ slots


async def test_more_slots_are_used_at_once_and_fewer_once_those_who_have_one_are_done(
    autojump_clock, factory
):
    configure(factory, daemon={"slots": 1})
    for n in range(6):
        factory.put(f"AR-{n}", priority=n + 1)
    for n in range(6):
        factory.script.parts[f"ar-{n}-impl"] = [TEN_S]

    def running():
        return [k for k, one in daemon.ledger.registry.issues.items() if one.state is S.RUNNING]

    async with factory.daemon() as daemon:
        await daemon.wait_runs("ar-0-impl")
        assert running() == ["ar-0"]
        configure(factory, daemon={"slots": 3})
        await daemon.reloader.reload()
        await trio.sleep(1)
        assert running() == ["ar-0", "ar-1", "ar-2"]
        configure(factory, daemon={"slots": 1})
        await daemon.reloader.reload()
        await trio.sleep(1)
        assert running() == ["ar-0", "ar-1", "ar-2"]
        assert daemon.shop.slots.free == 0
        most = 3
        while daemon.state("AR-5") is not S.DONE:
            await trio.sleep(1)
            assert len(running()) <= most
            most = max(1, len(running()))
        assert factory.script.started.count("ar-5-impl") == 1


# ------------------------------------------------------------------- what runs, and what comes


async def test_an_attempt_that_runs_ends_with_what_it_began_with(autojump_clock, factory):
    """Its recipe, its agents, its limits: all are gone from the file while it runs."""
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1, after_s=10), TEN_S]
    other = (
        SMALL.replace("pair", "solo").replace("reviewer", "critic").replace("implementer", "doer")
    )
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.file = lambda: replace(
            parse(other + SETTINGS), resume=replace(factory.config.resume, max_resumes=0)
        )
        assert (await daemon.reloader.reload()).mistakes == ()
        await daemon.wait_state("AR-1", S.DONE)
        assert factory.script.started == [IMPL, IMPL, REVIEW]
        factory.put("AR-2")
        await daemon.wait_state("AR-2", S.DONE)
        assert factory.script.started[3:] == ["ar-2-impl", "ar-2-critic"]


async def test_a_run_is_stopped_as_it_began_and_spares_whom_the_newest_file_protects(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        configure(factory, stop={"grace": 3000.0, "signal": "SIGINT"}, protect={"pids": (4242,)})
        await daemon.reloader.reload()
        began = trio.current_time()
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        assert trio.current_time() - began == pytest.approx(10, abs=1)
        (life,) = factory.world.lives.values()
        assert life.signals == ["SIGTERM", "SIGKILL"]
        assert life.policy is not None
        assert (life.policy.signal, life.policy.protected_pids) == ("SIGTERM", frozenset({4242}))


async def test_the_next_attempt_is_stopped_as_the_newest_file_says(autojump_clock, factory):
    configure(factory, resume={"max_resumes": 0})
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program(status=1, after_s=1), Program(ignores_terminate=True)]
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.COOLDOWN)
        configure(factory, stop={"grace": 100.0})
        await daemon.reloader.reload()
        await daemon.wait_state("AR-1", S.RUNNING)
        await daemon.wait_runs(IMPL)
        began = trio.current_time()
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        assert trio.current_time() - began == pytest.approx(100, abs=1)


async def test_what_is_claimed_and_not_begun_is_triaged_by_the_newest_file(autojump_clock, factory):
    factory.put("AR-1")
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "claim" else None
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        await trio.testing.wait_all_tasks_blocked()
        write(factory, SMALL.replace('recipe = "pair"', 'recipe = "solo"') + SOLO)
        await daemon.reloader.reload()
        gate.set()
        await daemon.wait_state("AR-1", S.DONE)
        assert factory.script.started == [REVIEW]


SOLO = """
[recipes.solo]
stages = [["reviewer"]]
"""


async def test_a_file_that_comes_while_the_workspace_is_made_is_gone_by(
    autojump_clock, factory, monkeypatch
):
    prepare = factory.workspaces.prepare

    async def slow(issue, repo):
        await trio.sleep(0.01)
        return await prepare(issue, repo)

    monkeypatch.setattr(factory.workspaces, "prepare", slow)
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        await trio.sleep(0.005)
        write(
            factory, SMALL.replace("pair", "solo") + "\n[recipes.pair]\nstages = [['reviewer']]\n"
        )
        await daemon.reloader.reload()
        assert daemon.state("AR-1") is S.CLAIMED
        await daemon.wait_state("AR-1", S.DONE)
        assert daemon.record("AR-1").recipe == "solo"
        assert factory.script.started == [IMPL, REVIEW]


async def test_the_gate_of_the_newest_file_holds_for_what_comes(autojump_clock, factory):
    factory.put("AR-1", labels=())
    async with factory.daemon() as daemon:
        await trio.sleep(1)
        assert daemon.state("AR-1") is None
        write(factory, SMALL.replace('label = "factory"', "default = true"))
        new = factory.file()
        factory.file = lambda: replace(new, safety=replace(new.safety, require_label=""))
        await daemon.reloader.reload()
        await daemon.wait_state("AR-1", S.DONE)


async def test_rule_2_an_escalated_issue_is_triaged_anew_when_the_configuration_changes(
    autojump_clock, factory
):
    factory.config = parse(NOWHERE + SETTINGS)
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.ESCALATED)
        await daemon.reloader.reload()
        await trio.sleep(100)
        assert len(factory.of_kind(IssueEscalated)) == 1, "the same reason is not told again"
        write(factory, SMALL)
        await daemon.reloader.reload()
        await daemon.wait_state("AR-1", S.DONE)


async def test_an_issue_that_something_broke_on_is_looked_at_anew(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    async with factory.daemon() as daemon:
        decide, broken = daemon.scheduler.decide, [True]

        def break_once(issue):
            if broken:
                broken.clear()
                raise ZeroDivisionError("a bug")
            return decide(issue)

        monkeypatch.setattr(daemon.scheduler, "decide", break_once)
        await trio.sleep(100)
        assert daemon.state("AR-1") is None
        await daemon.reloader.reload()
        await daemon.wait_state("AR-1", S.DONE)


# ---------------------------------------------------------------------------------- sources


TWO = SMALL + "[[sources]]\nkind = 'folder'\npath = 'other'\n"
ONLY_OTHER = SMALL.replace('path = "issues"', 'path = "other"')


async def test_a_source_that_is_added_is_followed_at_once(autojump_clock, factory):
    async with factory.daemon() as daemon:
        write(factory, TWO)
        assert (await daemon.reloader.reload()).changed == ("sources",)
        _, other = factory.sources
        assert daemon.sources.names == ["issues", "other"]
        factory.source = other
        factory.put("AR-1")
        await daemon.wait_state("AR-1", S.DONE)
        assert [one.read().name for one in daemon.pulses.pulses] == [
            "source issues",
            "source other",
        ]
        assert (await daemon.reloader.reload()).changed == ()
        assert len(factory.sources) == 2, "those that stay are not made again"


async def test_a_source_that_is_removed_is_written_back_to_and_not_asked_again(
    autojump_clock, factory
):
    source = factory.source
    factory.put("AR-1")
    factory.script.parts[IMPL] = [TEN_S]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        write(factory, ONLY_OTHER)
        await daemon.reloader.reload()
        looks = source.calls.count(("list_ready", ""))
        factory.put("AR-2")
        await trio.sleep(1)
        assert daemon.sources.names == ["other"]
        assert [one.name for one in daemon.sources.leaving] == ["issues"]
        assert not source.watching
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert [note.state for note in source.outcomes["AR-1"]] == [S.DONE]
        await trio.sleep(100)
        assert source.calls.count(("list_ready", "")) == looks
        assert daemon.state("AR-2") is None
        assert daemon.sources.leaving == []
        assert [one.read().name for one in daemon.pulses.pulses] == ["source other"]
        assert daemon.shop.slots.free == 2


async def test_a_source_that_comes_back_is_followed_again_while_the_old_one_leaves(
    autojump_clock, factory
):
    first = factory.source
    factory.put("AR-1")
    factory.script.parts[IMPL] = [TEN_S]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        write(factory, ONLY_OTHER)
        await daemon.reloader.reload()
        write(factory, TWO)
        await daemon.reloader.reload()
        assert daemon.sources.names == ["issues", "other"]
        second = factory.sources[-1]
        assert (second.name, second is first) == ("issues", False)
        factory.source = second
        factory.put("AR-2")
        for key in ("AR-1", "AR-2"):
            await daemon.wait_for(lambda key=key: daemon.state(key) and daemon.record(key).written)
        assert list(first.outcomes) == ["AR-1"], "each is written back to where it was claimed"
        assert list(second.outcomes) == ["AR-2"]


async def test_a_claimed_issue_of_a_removed_source_is_begun_and_written_back(
    autojump_clock, factory
):
    configure(factory, daemon={"slots": 1})
    factory.put("AR-0", priority=1)
    factory.put("AR-1")
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "claim" else None
    async with factory.daemon() as daemon:
        await trio.sleep(60)  # the first has lent its slot meanwhile, so both are claimed
        assert {daemon.state("AR-0"), daemon.state("AR-1")} == {S.CLAIMED}
        write(factory, ONLY_OTHER)
        await daemon.reloader.reload()
        gate.set()
        for key in ("AR-0", "AR-1"):
            await daemon.wait_for(lambda key=key: daemon.record(key).written)
        assert sorted(factory.source.outcomes) == ["AR-0", "AR-1"]


async def test_an_issue_whose_source_is_nowhere_waits_without_asking_until_it_is_back(
    autojump_clock, factory
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [TEN_S]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    source = factory.sources.pop()
    other = FakeSource("other")
    factory.sources.append(other)
    factory.config = parse(ONLY_OTHER + SETTINGS)
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.DONE)
        await trio.sleep(100)
        assert daemon.shop.slots.free == 2
        assert not daemon.record("AR-1").written
        trouble = daemon.shop.troubles["ar-1"]
        assert trouble.endswith(lost_source(daemon.record("AR-1").issue))
        write(factory, TWO)
        await daemon.reloader.reload()
        back = factory.sources[-1]
        back.active.update(source.active)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert list(back.outcomes) == ["AR-1"]
        assert "ar-1" not in daemon.shop.troubles


async def test_what_a_drain_finds_without_a_source_is_left_for_the_next_daemon(
    autojump_clock, factory
):
    factory.put("AR-1")
    gate = trio.Event()
    factory.source.before = lambda method: gate if method == "claim" else None
    async with factory.daemon() as daemon:
        await daemon.wait_state("AR-1", S.CLAIMED)
        factory.kill_daemon()
    source = factory.sources.pop()
    factory.sources.append(FakeSource("other"))
    with trio.fail_after(300):
        daemon = await factory.drain()
    assert daemon.state("AR-1") is S.CLAIMED
    assert daemon.sources.unfinished() == [daemon.record("AR-1")]
    gate.set()
    factory.sources.append(source)
    assert (await factory.drain()).state("AR-1") is S.DONE


async def test_an_issue_without_a_source_is_given_up_by_a_second_kill(autojump_clock, factory):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [FOREVER]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        factory.kill_daemon()
    factory.sources[:] = [FakeSource("other")]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        await daemon.wait_state("AR-1", S.CANCELLED)
        await trio.sleep(10)
        assert not daemon.record("AR-1").written
        await daemon.scheduler.kill(["AR-1"], "enough", None)
        assert daemon.record("AR-1").written
        await trio.sleep(10)
        assert daemon.shop.stranded == set()
    (withheld,) = factory.of_kind(OutcomeWithheld)
    assert withheld.reason == "the configuration no longer has the source 'issues'"
    assert factory.left() == []


async def test_an_issue_that_is_being_claimed_while_its_source_is_removed_is_written_back_to_it(
    autojump_clock, factory, source, monkeypatch, nursery
):
    async with factory.daemon() as daemon:
        record, gate = daemon.ledger.record, trio.Event()

        async def slow_record(*facts):
            if any(isinstance(fact, IssueClaimed) for fact in facts):
                await gate.wait()
            await record(*facts)

        monkeypatch.setattr(daemon.ledger, "record", slow_record)
        factory.put("AR-1")
        await trio.sleep(1)
        write(factory, ONLY_OTHER)
        nursery.start_soon(daemon.reloader.reload)
        await trio.sleep(1)
        gate.set()
        await daemon.wait_state("AR-1", S.DONE)
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        assert list(source.outcomes) == ["AR-1"]
