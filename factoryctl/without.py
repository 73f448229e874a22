"""`factoryd` itself, run in the stead of a daemon that does not answer."""

import os
import sys
from argparse import Namespace

from factoryctl.errors import NotRunning
from factoryctl.output import say
from factoryctl.places import find_sockets


def command(verb: str, **places: str | None) -> list[str]:
    """Return the command line of a verb of `factoryd`; a place that is not given is left to it."""
    # -P: nothing is imported from the directory that this happens to be called in.
    line = [sys.executable, "-P", "-m", "factoryd", verb]
    for name, place in places.items():
        line += [f"--{name.replace('_', '-')}", place] if place is not None else []
    return line


def become(line: list[str]) -> int:
    """Become another program; never returns."""
    os.execv(line[0], line)  # noqa: S606  no shell is what is wanted


def ask_ledger(verb: str, arguments: list[str], options: Namespace, failure: NotRunning) -> int:
    """Become the verb of `factoryd` that answers from the ledger of a daemon that is not running.

    Raise `NotRunning` where nothing says which ledger that is.
    """
    if options.state_dir is None and has_own_socket(options):
        raise NotRunning(f"{failure}; to read its ledger without it, say --state-dir DIR")
    say(f"{failure}\nreading its ledger instead")
    as_json = ["--json"] * options.json
    return become([*command(verb, state_dir=options.state_dir), *as_json, *arguments])


def has_own_socket(options: Namespace) -> bool:
    """Say whether a socket is named that a daemon would not have whose state is at its usual place."""
    named = options.socket or os.environ.get("FACTORYD_SOCKET")
    if not named:
        return False
    environ = {name: text for name, text in os.environ.items() if name != "FACTORYD_SOCKET"}
    return named not in find_sockets(
        socket=None,
        runtime=options.runtime_dir,
        state=None,
        environ=environ,
        is_root=os.geteuid() == 0,
    )
