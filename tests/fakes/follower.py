"""An output follower without output, unless its test writes some."""

import trio

from factoryd.core.model import RunId, TreePlace
from factoryd.ports import Progress


class FakeFollower:
    """See `ports.OutputFollower`. `following` holds what is followed now."""

    def __init__(self) -> None:
        self.following: dict[RunId, Progress] = {}
        self.drained: list[RunId] = []
        self.error: Exception | None = None

    async def follow(self, place: TreePlace, offset: int, progress: Progress) -> None:
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise self.error
        self.following[place.run] = progress
        try:
            await trio.sleep_forever()
        finally:
            del self.following[place.run]

    async def drain(self, place: TreePlace, progress: Progress) -> None:
        await trio.lowlevel.checkpoint()
        self.drained.append(place.run)

    def write(self, agent: str, size: int = 1) -> None:
        """Have an agent that is being followed print something."""
        for run, progress in self.following.items():
            if run.startswith(f"{agent}-"):
                progress.advance(progress.offset + size)
