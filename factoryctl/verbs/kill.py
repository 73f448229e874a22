"""`kill`: ends issues with all their agents, and tells the proof of it as it comes."""

import sys
from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.errors import BadUsage, Failure
from factoryctl.layout import plain_killed
from factoryctl.output import answer, printable, say
from factoryctl.typed import read, stream
from factoryd.wire.answers import KilledView, KillReply
from factoryd.wire.messages import KillCall, ReleaseCall

SURVIVORS = 7
_PROGRESS_S = 5


def run(options: Namespace) -> int:
    """End what is named; 7 when something of it is left."""
    _check(options)
    parameters = KillCall(
        targets=tuple(options.targets),
        all=options.all,
        grace_s=options.grace,
        now=options.now,
        reason=options.reason,
        wait=not options.no_wait,
    )
    killed, ended = follow("Kill", parameters, options)
    if options.no_wait:
        say("stopping has begun; see `factoryctl status`")
    elif not killed and not ended:
        say("there was nothing to end")
    return verdict(killed)


def follow(
    method: str, parameters: KillCall | ReleaseCall, options: Namespace
) -> tuple[list[KilledView], list[str]]:
    """End issues, show what comes of it as it comes, and return all of it."""
    killed: list[KilledView] = []
    ended: list[str] = []
    silent_s = 0
    with connect(options.sockets) as connection:
        for reply in stream(connection, method, parameters):
            if reply is None:
                silent_s += 1
                if silent_s % _PROGRESS_S == 0:
                    say(f"still waiting for agents to end ({silent_s} s)")
                continue
            silent_s = 0
            progress = read(reply, KillReply)
            killed += progress.agents
            ended += progress.ended
            _show(progress, as_json=options.json)
    return killed, ended


def _check(options: Namespace) -> None:
    if options.all and options.targets:
        raise BadUsage("name targets or say --all, not both")
    if not options.all and not options.targets:
        raise BadUsage("name an issue or an agent to end, or say --all")
    if not options.all or options.yes:
        return
    if not sys.stdin.isatty():
        raise BadUsage("--all ends every issue: say --all --yes where nobody can be asked")
    print("End every issue with all its agents? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Failure("nothing was ended")


def _show(progress: KillReply, *, as_json: bool) -> None:
    for one in progress.agents:
        answer(msgspec.json.encode(one).decode() if as_json else plain_killed(one))
    if not as_json:
        for key in progress.ended:
            answer(printable(f"{key}  ended"))


def verdict(killed: list[KilledView]) -> int:
    """Return 7 when something is left of what was ended, which is told, else 0."""
    left = [one for one in killed if one.survivors or not one.emptied]
    for one in left:
        say(
            f"{one.agent} (run {one.run}) is not proven empty, {one.survivors} processes are left: "
            "factoryd goes on trying; see `factoryctl status`"
        )
    return SURVIVORS if left else 0
