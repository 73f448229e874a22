"""What methods answer, where the order of things decides."""

import trio

from factoryd.flow.methods import Methods
from factoryd.wire.messages import decode_call
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, factory
from tests.unit.test_views import overview_of

__all__ = ["factory"]

KILL = decode_call(b'{"method": "io.factoryd.Control.Kill", "parameters": {"targets": ["AR-1"]}}')


async def test_a_kill_is_answered_when_all_its_facts_come_while_the_first_are_read(
    autojump_clock, factory, monkeypatch
):
    replies = []

    async def say(reply, *, continues=False):
        replies.append((reply, continues))

    def no_stop(reason, *, keep_agents):
        raise AssertionError

    async def slow_read(*args):
        await daemon.wait_for(lambda: daemon.record("AR-1").written)
        return await read(*args)

    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program()]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        await daemon.wait_for(lambda: daemon.record("AR-1").left_ready)  # no fact follows the last
        overview = overview_of(daemon)
        methods = Methods(
            daemon.shop, daemon.scheduler, overview, no_stop, daemon.reaper, daemon.reloader
        )
        read = daemon.ledger.read
        monkeypatch.setattr(daemon.ledger, "read", slow_read)
        with trio.fail_after(60):
            await methods.answer("io.factoryd.Control", "Kill", KILL, say)
    ((reply, continues),) = replies
    assert (reply.ended, continues) == (("AR-1",), False)
    assert [(one.agent, one.emptied) for one in reply.agents] == [(IMPL, True)]
