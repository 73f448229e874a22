"""`status`: the daemon, its sources, issues and agents, once or whenever they change."""

import json
from argparse import Namespace

from factoryctl.client import ask
from factoryctl.output import answer
from factoryd.wire.framing import request


def run(options: Namespace) -> int:
    """Show the picture of now; with `watch` go on until interrupted."""
    if options.watch or not options.json:
        # Imported only where it is needed: the path below starts fast.
        from factoryctl.verbs.picture import show  # noqa: PLC0415

        return show(options)
    parameters = json.dumps({"targets": options.targets})
    answer(ask(options.sockets, request("Status", parameters)).parameters)
    return 0
