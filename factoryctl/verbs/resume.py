"""`resume`: has dispatching go on."""

from argparse import Namespace

from factoryctl.verbs.pause import settle
from factoryd.wire.messages import ResumeCall


def run(options: Namespace) -> int:
    """Go on dispatching; that it is not paused is no failure."""
    return settle("Resume", ResumeCall(), options)
