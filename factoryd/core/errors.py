"""Every error that factoryd raises on purpose.

Drawn as a tree; who must act decides where an error hangs:

    FactoryError                  refused or failed                       exit 1
    ├ BadUsage                   the caller must ask differently          exit 2
    │ └ ConfigInvalid            the configuration must be mended         exit 2
    ├ NotRunning                 a daemon must be started                 exit 3
    ├ NoSuchTarget               no issue or agent of that name           exit 4
    ├ Degraded                   the daemon hangs or a part of it does    exit 5
    ├ PermissionDenied           someone else must ask                    exit 6
    ├ SurvivorsRemain            processes could not be ended             exit 7
    ├ AlreadyRunning             the other daemon must end first          exit 1
    ├ IllegalFact                a fact that the ledger's state forbids   exit 1  (a bug, or a race lost)
    │ └ NameTaken                an older tree still has that agent's name  exit 1
    ├ LedgerUnavailable          the state cannot be read or written      exit 1
    ├ SourceFailed               a source of issues does not answer       exit 1
    ├ WorkspaceFailed            a workspace cannot be made               exit 1
    └ CannotStart                an agent's program cannot be started     exit 1
"""

from typing import ClassVar

KEEP_AGENTS_STATUS = 75
"""The exit status of a daemon that has left its agents running for the next one to adopt."""


class FactoryError(Exception):
    """Base of all expected errors; `str()` of it is one sentence for a person."""

    exit_status: ClassVar[int] = 1


class BadUsage(FactoryError):
    """The call itself is wrong."""

    exit_status = 2


class ConfigInvalid(BadUsage):
    """The configuration has mistakes; all of them, one `FILE: key: reason` each."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class NotRunning(FactoryError):
    """No daemon answers."""

    exit_status = 3


class NoSuchTarget(FactoryError):
    """No issue and no agent has that name."""

    exit_status = 4


class Degraded(FactoryError):
    """The daemon hangs, or a part of it is late."""

    exit_status = 5


class PermissionDenied(FactoryError):
    """The caller may not do this."""

    exit_status = 6


class SurvivorsRemain(FactoryError):
    """Processes are left that could not be ended."""

    exit_status = 7


class AlreadyRunning(FactoryError):
    """Another daemon holds the state directory."""


class IllegalFact(FactoryError):
    """A fact contradicts the state; nothing was changed."""


class NameTaken(IllegalFact):
    """An agent cannot start: run `holder` of its name is live, or not proven empty."""

    def __init__(self, message: str, *, agent: str, holder: str) -> None:
        super().__init__(message)
        self.agent = agent
        self.holder = holder


class LedgerUnavailable(FactoryError):
    """The ledger cannot be opened, read or written."""


class SourceFailed(FactoryError):
    """A source could not be read or written; it may work later."""


class WorkspaceFailed(FactoryError):
    """The place an agent would work in cannot be made."""


class CannotStart(FactoryError):
    """An agent's program cannot be started; the reason names the program."""
