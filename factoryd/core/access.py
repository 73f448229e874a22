"""Who may do what over the control socket."""

from enum import IntEnum

from factoryd.core.config import AccessConfig
from factoryd.core.model import Data


class Right(IntEnum):
    """What a caller may do; each includes the ones before."""

    NOTHING = 0
    READ = 1
    EVERYTHING = 2


class Caller(Data, frozen=True, kw_only=True):
    """Who asks, as the kernel says (SO_PEERCRED, unix(7)).

    `in_agent` says whether the process is inside an agent's tree, None when nobody can tell.
    """

    pid: int
    uid: int
    user: str | None
    groups: frozenset[str]
    in_agent: bool | None


def right_of(caller: Caller, access: AccessConfig, own_uid: int) -> Right:
    """Return what a caller may do.

    An agent may read, whatever account it runs as; so may a caller that cannot be told from one,
    if its account may do anything at all.
    """
    if caller.in_agent:
        return Right.READ
    if caller.uid in {0, own_uid} or _named(caller, access.operators):
        return Right.READ if caller.in_agent is None else Right.EVERYTHING
    return Right.READ if _named(caller, access.readers) else Right.NOTHING


def _named(caller: Caller, principals: tuple[str, ...]) -> bool:
    own = {f"@{group}" for group in caller.groups} | {caller.user}
    return any(principal in own for principal in principals)
