"""`history`: finished issues, or all that one issue went through."""

from argparse import Namespace

from factoryctl.client import connect
from factoryctl.errors import NotRunning
from factoryctl.without import ask_ledger


def run(options: Namespace) -> int:
    """Show issues, newest first; without a daemon `factoryd history` reads them."""
    try:
        with connect(options.sockets) as connection:
            # Imported only where it is needed: without a daemon factoryd pays for it.
            from factoryctl.verbs.past import show  # noqa: PLC0415  slow

            return show(connection, options)
    except NotRunning as failure:
        only = ["--", options.issue] if options.issue is not None else []
        arguments = ["--limit", str(options.limit), *only]
        return ask_ledger("history", arguments, options, failure)
