"""`doctor`: what this machine offers, and what is wrong; also when everything is broken."""

import subprocess
from argparse import Namespace
from collections.abc import Sequence

import msgspec

from factoryctl.checks import daemon_check, in_force, unheard_check
from factoryctl.client import connect
from factoryctl.errors import Failure
from factoryctl.layout import plain_checkup
from factoryctl.offline import judge
from factoryctl.output import answer
from factoryctl.typed import call
from factoryctl.without import command
from factoryd.wire.answers import DaemonView, StatusReply
from factoryd.wire.checkup import Check, Checkup, Verdict
from factoryd.wire.messages import StatusCall

_LOOK_S = 60.0
_PLACES = ("config", "state_dir", "runtime_dir")


def run(options: Namespace) -> int:
    """Ask the daemon about itself and `factoryd doctor` about the rest; 1 when something failed."""
    told = _ask_daemon(options.sockets)
    if isinstance(told, Check):
        checkup = Checkup(checks=(told, *_look_around(options, "")))
    else:
        checkup = Checkup(checks=(daemon_check(told), *_look_around(options, in_force(told))))
    answer(msgspec.json.encode(checkup).decode() if options.json else plain_checkup(checkup))
    return 1 if checkup.failed else 0


def _ask_daemon(sockets: Sequence[str]) -> DaemonView | Check:
    """Return what a running daemon says of itself, else what can be known of it."""
    try:
        with connect(sockets) as connection:
            return call(connection, "Status", StatusCall(), StatusReply).daemon
    except Failure as failure:
        verdicts = [verdict for verdict in map(judge, sockets) if verdict is not None]
        return unheard_check(failure, verdicts)


def _look_around(options: Namespace, known: str) -> Sequence[Check]:
    places = {place: getattr(options, place) for place in _PLACES}
    line = [*command("doctor", **places), "--json", "--in-force", known]
    try:
        done = subprocess.run(  # noqa: TID251  blocking is what factoryctl does
            line, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LOOK_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [_broken(f"it does not come to an end within {_LOOK_S:.0f} s")]
    except OSError as error:
        return [_broken(f"it cannot be run ({error.strerror})")]
    try:
        return msgspec.json.decode(done.stdout, type=Checkup).checks
    except msgspec.DecodeError:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return [_broken(f"it ended with {done.returncode}: {said}")]


def _broken(trouble: str) -> Check:
    return Check(
        name="factoryd doctor",
        state=Verdict.FAILED,
        detail=trouble,
        advice="run factoryd doctor to see more; is the installation complete?",
    )
