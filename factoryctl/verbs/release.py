"""`release`: ends an issue as done, its work being done elsewhere."""

from argparse import Namespace

from factoryctl.verbs.kill import follow, verdict
from factoryd.wire.messages import ReleaseCall


def run(options: Namespace) -> int:
    """End an issue as done; 7 when something of it is left."""
    wanted = ReleaseCall(target=options.issue, reason=options.reason)
    killed, _ = follow("Release", wanted, options)
    return verdict(killed)
