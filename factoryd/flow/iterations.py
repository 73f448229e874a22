"""The bounded loop of `--iterations`: which looks at the sources failed, and whether that is enough."""

import logging
from collections.abc import Sequence

from factoryd.flow.source_follower import SourceFollower

logger = logging.getLogger(__name__)

MOST_FAILURES = 3
"""So many iterations failing in a row stop the loop."""


class Iterations:
    """Counts iterations: the n-th look at every source. One has failed when no source answered."""

    def __init__(self, followers: Sequence[SourceFollower], wanted: int) -> None:
        self._followers = followers
        self._wanted = wanted
        self._seen = 0
        self._failed = 0

    @property
    def done(self) -> bool:
        """Say whether every source was looked at as often as is wanted."""
        return all(follower.asked >= self._wanted for follower in self._followers)

    def note(self) -> None:
        """Look at what the sources have answered; a failed iteration is reported, once."""
        asked = min(follower.asked for follower in self._followers)
        for number in range(self._seen + 1, min(asked, self._wanted) + 1):
            failed = all(number in follower.failed for follower in self._followers)
            self._failed = self._failed + 1 if failed else 0
            if failed:
                logger.error("iteration %d of %d failed: no source answers", number, self._wanted)
            self._seen = number
            if self.hopeless:
                return

    @property
    def hopeless(self) -> bool:
        """Say whether so many iterations in a row have failed that the loop is to stop."""
        return self._failed >= MOST_FAILURES
