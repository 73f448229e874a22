"""Every reason for which factoryctl ends without success.

`str()` of each is what a person reads, and each has the exit status that scripts read:

    Failure              refused or failed                       1
    ├ HungUp            the daemon closed the connection         1
    ├ Garbled           what answers does not speak our language 1
    ├ BadUsage          the command itself is wrong              2
    ├ NotRunning        there is no daemon                       3
    ├ NotAnswering      there is one, but it does not answer     5
    ├ NotAllowed        the socket is closed to this user        6
    ├ Unproven          processes may be left                    7
    └ Refused           the daemon said no                       as the wire's table says
"""


class Failure(Exception):
    """Base of all."""

    exit_status = 1


class HungUp(Failure):
    """The connection ended before the answer did."""


class Garbled(Failure):
    """An answer that cannot be read."""


class BadUsage(Failure):
    """A command that contradicts itself or lacks something."""

    exit_status = 2


class NotRunning(Failure):
    """Nobody listens at any place where a daemon would."""

    exit_status = 3


class NotAnswering(Failure):
    """Somebody listens, and says nothing in time."""

    exit_status = 5


class NotAllowed(Failure):
    """The kernel keeps this user from the socket."""

    exit_status = 6


class Unproven(Failure):
    """The daemon ended, and did not say that nothing is left."""

    exit_status = 7


class Refused(Failure):
    """The daemon's own error: its full name and its reason."""

    def __init__(self, error: str, reason: str, exit_status: int) -> None:
        super().__init__(reason)
        self.error = error
        self.exit_status = exit_status
