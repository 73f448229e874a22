"""`thaw`: has a frozen issue go on."""

from argparse import Namespace

from factoryctl.verbs.freeze import settle
from factoryd.wire.messages import ThawCall


def run(options: Namespace) -> int:
    """Thaw an issue and return once all its agents go on."""
    return settle("Thaw", ThawCall(target=options.issue), options)
