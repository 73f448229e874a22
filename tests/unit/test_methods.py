"""What the control interface's methods answer, over a factory on fakes."""

import json

import trio

from factoryd.flow.methods import Methods
from factoryd.wire.framing import INTERFACE
from factoryd.wire.messages import KillReply, decode_call
from tests.fakes.trees import Program
from tests.unit.factories import IMPL, factory
from tests.unit.test_views import overview_of

__all__ = ["factory"]


async def ask(daemon, name, **parameters):
    """Return the last answer to a call."""
    methods = Methods(daemon.shop, daemon.scheduler, overview_of(daemon), lambda reason: None)
    message = {"method": f"{INTERFACE}.{name}", "parameters": parameters}
    answers = []

    async def say(reply, *, continues=False):
        answers.append(reply)

    with trio.fail_after(1000):
        await methods.answer(INTERFACE, name, decode_call(json.dumps(message).encode()), say)
    return answers[-1]


async def test_a_kill_is_answered_although_all_was_over_before_its_facts_were_read(
    autojump_clock, factory, monkeypatch
):
    factory.put("AR-1")
    factory.script.parts[IMPL] = [Program()]
    async with factory.daemon() as daemon:
        await daemon.wait_runs(IMPL)
        read = daemon.ledger.read

        async def slowly(*args):
            await trio.sleep(10)
            return await read(*args)

        monkeypatch.setattr(daemon.ledger, "read", slowly)
        reply = await ask(daemon, "Kill", targets=["AR-1"])
    assert isinstance(reply, KillReply)
    assert reply.ended == ("AR-1",)
    assert [(one.agent, one.emptied) for one in reply.agents] == [(IMPL, True)]
