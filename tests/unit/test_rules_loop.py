"""The bounded loop: how often the sources are asked, what failing means, what leaving it leaves."""

import pytest
import trio
from typing_extensions import override

from factoryd.__main__ import _drain_after, make_parser
from factoryd.core.errors import SourceFailed
from factoryd.core.model import Issue, IssueState
from factoryd.flow.scheduler import Scheduler
from tests.fakes.source import FakeSource
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, factory

__all__ = ["factory"]

S = IssueState
FOREVER = Program()
TOO_MANY = "stopping: 3 iterations in a row failed"


class Shaky(FakeSource):
    """A source that fails at some looks, by number."""

    def __init__(self, name: str, *failing: int) -> None:
        super().__init__(name)
        self.failing = failing
        self.looks = 0

    @override
    async def list_ready(self):
        self.looks += 1
        listing = await super().list_ready()
        if self.looks in self.failing:
            raise SourceFailed("the folder is not mounted")
        return listing


def use(factory, *sources):
    factory.source, factory.sources = sources[0], list(sources)


@pytest.mark.parametrize(
    ("arguments", "looks"),
    [
        ([], None),
        (["--once"], 0),
        *[(["--iterations", str(n)], min(max(n, 1), 5)) for n in (-7, 0, 1, 2, 5, 6, 10**9)],
    ],
)
def test_iterations_are_clamped_to_one_to_five(arguments, looks):
    assert _drain_after(make_parser().parse_args(["run", *arguments])) == looks


@pytest.mark.parametrize("failing", [(1,), (1, 2), (2, 3), (1, 2, 4, 5), (1, 3, 5)])
async def test_an_iteration_that_fails_is_reported_and_not_the_end(
    autojump_clock, factory, caplog, failing
):
    use(factory, Shaky("shaky", *failing))
    factory.put("AR-1")
    daemon = await factory.drain(drain_after=5)
    assert daemon.state("AR-1") is S.DONE
    assert factory.source.looks >= 5
    told = [line for line in caplog.messages if "failed: no source answers" in line]
    assert told == [f"iteration {n} of 5 failed: no source answers" for n in failing]
    assert TOO_MANY not in caplog.text


@pytest.mark.parametrize("failing", [(1, 2, 3), (2, 3, 4), (3, 4, 5), (1, 3, 4, 5)])
async def test_three_iterations_that_fail_in_a_row_stop_the_loop_and_all_that_it_started(
    autojump_clock, factory, caplog, failing
):
    use(factory, Shaky("shaky", *failing, *range(6, 100)))
    factory.script.parts[IMPL] = [FOREVER]
    factory.put("AR-1")
    with trio.fail_after(1000):
        daemon = await factory.drain(drain_after=5)
    assert factory.source.looks == failing[-1]
    assert TOO_MANY in caplog.text
    assert factory.left() == []
    assert [one.trouble for one in daemon.scheduler.followers] == ["the folder is not mounted"]
    if failing[0] != 1:
        assert factory.script.started == [IMPL]
        assert daemon.state("AR-1") is S.RUNNING, "the next daemon goes on with it"


async def test_a_source_that_fails_all_the_time_does_not_stop_a_loop_that_has_another(
    autojump_clock, factory, caplog
):
    use(factory, Shaky("shaky", *range(1, 100)), FakeSource("steady"))
    factory.sources[1].put(Issue(key="AR-1", title="Mend", labels=("factory",)))
    daemon = await factory.drain(drain_after=5)
    assert daemon.state("AR-1") is S.DONE
    assert "failed: no source answers" not in caplog.text


async def test_sources_that_fail_while_the_last_work_is_done_do_not_end_it(
    autojump_clock, factory, caplog
):
    use(factory, Shaky("shaky", *range(4, 50)))
    factory.script.parts[IMPL] = [Program(status=0, after_s=1000)]
    factory.put("AR-1")
    daemon = await factory.drain(drain_after=3)
    assert daemon.state("AR-1") is S.DONE
    assert TOO_MANY not in caplog.text


@pytest.mark.parametrize("how", ["an error inside", "a cancel"])
async def test_leaving_the_loop_by_whatever_way_stops_everything_it_started(
    autojump_clock, factory, monkeypatch, how
):
    factory.script.parts[IMPL] = [Program(children=3, ignores_terminate=True)]
    factory.put("AR-1")
    note = Scheduler._note_departures

    async def breaks(self):
        if factory.left() and how == "an error inside":
            raise ZeroDivisionError("a bug in the loop")
        await note(self)

    monkeypatch.setattr(Scheduler, "_note_departures", breaks)
    left = None
    with trio.move_on_after(100):
        try:
            await factory.drain(drain_after=5)
        except* ZeroDivisionError:
            left = "error"
    assert left == ("error" if how == "an error inside" else None)
    assert factory.script.started == [IMPL]
    assert factory.left() == []
