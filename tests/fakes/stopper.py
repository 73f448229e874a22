"""A program that takes over a run's tree as the next daemon would, stops it and prints its report.

    stopper.py [UID] <PLACE-AND-IDENTITY

It runs as another user (UID), or from inside the very tree it is to stop. What it is told and what
it prints are JSON; it gives a process up after a fraction of a second.
"""

import os
import sys

import msgspec
import trio

from factoryd.adapters import run_tree
from factoryd.adapters.subreaper import adopt
from factoryd.adapters.sweep import Sweeper
from factoryd.core.model import Data, ProcessIdentity, StopPolicy, StopReport, TreePlace


class Told(Data, frozen=True, kw_only=True):
    """Which tree, by what the ledger has of it, and how long it may take to listen."""

    name: str
    place: TreePlace
    identity: ProcessIdentity | None
    grace_s: float = 0.2


async def stop(told: Told) -> StopReport:
    tree = await adopt(Sweeper(told.name), told.place, told.identity)
    with trio.move_on_after(told.grace_s):
        await tree.terminate(StopPolicy())
    return await tree.kill(StopPolicy())


def main() -> None:
    told = msgspec.json.decode(sys.stdin.buffer.read(), type=Told)
    run_tree.PROOF_BOUND_S = 0.5
    if len(sys.argv) > 1:
        os.setgroups([])
        os.setresgid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
        os.setresuid(int(sys.argv[1]), int(sys.argv[1]), int(sys.argv[1]))
    sys.stdout.write(msgspec.json.encode(trio.run(stop, told)).decode())


if __name__ == "__main__":
    main()
