"""What `factoryd doctor --json` says, as those who run it may read it."""

from factoryd.core.checkup import Check, Checkup, Verdict

__all__ = ["Check", "Checkup", "Verdict"]
