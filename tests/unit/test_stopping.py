"""How trees are ended: asked, waited for together, killed, proven gone."""

import trio

from factoryd.core.config import ProtectConfig, StopConfig
from factoryd.core.model import Command, RunId, StopOrder, StopPolicy
from factoryd.flow.stopping import Stopping, stop_policy
from tests.fakes.trees import FakeTrees, Program

POLICY = StopPolicy()


async def start(program, run="r1"):
    trees = FakeTrees(lambda *_: program)
    place = trees.place("AR-1", "ar-1-impl", RunId(run), "/d")
    return await trees.start(place, Command(argv=("x",), env={}, cwd="/"))


async def test_a_tree_that_listens_is_not_killed_and_nothing_is_waited_for(autojump_clock):
    began = trio.current_time()
    report = await Stopping(10).empty(await start(Program()), POLICY)
    assert trio.current_time() == began
    assert report.emptied
    assert report.signals == ("SIGTERM",)


async def test_a_tree_that_does_not_listen_has_its_grace_and_is_killed_then(autojump_clock):
    began = trio.current_time()
    report = await Stopping(10).empty(await start(Program(ignores_terminate=True)), POLICY)
    assert trio.current_time() - began == 10
    assert report.emptied
    assert report.signals == ("SIGTERM", "SIGKILL")


async def test_trees_that_are_stopped_together_share_the_wait(autojump_clock):
    began, stopping = trio.current_time(), Stopping(10)
    async with trio.open_nursery() as nursery:
        for n in range(50):
            tree = await start(Program(ignores_terminate=True), f"r{n}")
            nursery.start_soon(stopping.empty, tree, POLICY)
    assert trio.current_time() - began == 10


async def test_a_grace_can_be_shortened_while_it_is_waited_for(autojump_clock):
    began, stopping = trio.current_time(), Stopping(10)
    async with trio.open_nursery() as nursery:
        tree = await start(Program(ignores_terminate=True))
        nursery.start_soon(stopping.empty, tree, POLICY)
        await trio.sleep(3)
        stopping.shorten(2)
    assert trio.current_time() - began == 5


async def test_shortening_never_lengthens_a_grace_and_counts_for_later_trees_too(autojump_clock):
    began, stopping = trio.current_time(), Stopping(10)
    async with trio.open_nursery() as nursery:
        tree = await start(Program(ignores_terminate=True))
        nursery.start_soon(stopping.empty, tree, POLICY)
        await trio.sleep(1)
        stopping.shorten(500)
    assert trio.current_time() - began == 10
    stopping.shorten(0)
    await stopping.empty(await start(Program(ignores_terminate=True)), POLICY)
    assert trio.current_time() - began == 10


async def test_a_tree_that_cannot_be_emptied_is_reported_as_what_it_is(autojump_clock):
    stuck = Program(survivors=(), ignores_terminate=True, children=2)
    assert (await Stopping(1).empty(await start(stuck), POLICY)).emptied


def test_the_configuration_says_how_to_stop_and_whom_never():
    policy = stop_policy(
        StopConfig(signal="SIGINT", order=StopOrder.ROOT_FIRST),
        ProtectConfig(pids=(7,), commands=("sshd",)),
    )
    assert policy == StopPolicy(
        signal="SIGINT",
        order=StopOrder.ROOT_FIRST,
        protected_pids=frozenset({7}),
        protected_commands=frozenset({"sshd"}),
    )
