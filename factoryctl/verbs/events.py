"""`events`: the facts of the ledger, up to now or as they happen."""

from argparse import Namespace

from factoryctl.client import connect
from factoryctl.errors import NotRunning
from factoryctl.without import ask_ledger


def run(options: Namespace) -> int:
    """Show the facts after `since`; with `follow` go on until interrupted.

    Without a daemon `factoryd events` reads them, and there is nothing to follow.
    """
    try:
        with connect(options.sockets) as connection:
            # Imported only where it is needed: without a daemon factoryd pays for it.
            from factoryctl.verbs.facts import show  # noqa: PLC0415  slow

            return show(connection, options)
    except NotRunning as failure:
        if options.follow:
            raise
        only = [f"--issue={options.issue}"] if options.issue is not None else []
        return ask_ledger("events", ["--since", str(options.since), *only], options, failure)
