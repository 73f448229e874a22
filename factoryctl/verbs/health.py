"""`health`: whether the daemon makes progress, also when it does not answer at all."""

from argparse import Namespace
from collections.abc import Sequence

import msgspec

from factoryctl.client import ask
from factoryctl.errors import Failure, Garbled, HungUp, NotAnswering, NotRunning
from factoryctl.layout import plain_health
from factoryctl.offline import Verdict, judge
from factoryctl.output import answer, printable, say
from factoryctl.typed import read
from factoryd.wire.answers import HealthReply, PulseView
from factoryd.wire.framing import request

OK, UNHEALTHY = 0, 5


class _Unheard(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` says of a daemon that did not answer: a health reply's members, and why."""

    state: str
    pid: int | None
    degraded: tuple[str, ...] = ()
    heartbeat_age_s: float | None
    pulses: tuple[PulseView, ...] = ()
    tasks: int | None = None
    reason: str


def run(options: Namespace) -> int:
    """Say how the daemon is; 3 when it is not running, 5 when it hangs or a part of it does."""
    try:
        reply = ask(options.sockets, request("Health", "{}"))
        health = read(reply, HealthReply)
    except (NotRunning, NotAnswering, HungUp, Garbled) as failure:
        return _unheard(failure, options.sockets, as_json=options.json)
    answer(reply.parameters if options.json else plain_health(health))
    return OK if health.state == "ok" else UNHEALTHY


def _unheard(failure: Failure, sockets: Sequence[str], *, as_json: bool) -> int:
    """Report on a daemon that did not answer, by the heartbeat it may have left."""
    verdicts = [verdict for verdict in map(judge, sockets) if verdict is not None]
    verdicts.sort(key=lambda verdict: verdict.state == "not-running")
    found = verdicts[0] if verdicts else None
    if found is None:
        gone = isinstance(failure, NotRunning | HungUp)
        found = Verdict(state="not-running" if gone else "hung", reason=str(failure))
    else:
        say(found.reason)
    if as_json:
        unheard = _Unheard(
            state=found.state,
            pid=found.pid,
            heartbeat_age_s=found.heartbeat_age_s,
            reason=found.reason,
        )
        answer(msgspec.json.encode(unheard).decode())
    else:
        answer(printable(found.state))
    say(str(failure))
    return NotRunning.exit_status if found.state == "not-running" else UNHEALTHY
