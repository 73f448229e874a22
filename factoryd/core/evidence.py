"""How a run ended, told to people: its exit, and what the kernel killed for lack of memory."""

from factoryd.core.events import RunResult
from factoryd.core.model import OutOfMemory
from factoryd.core.policy import Ending, classify_exit
from factoryd.core.units import format_size

_MOST_NAMED = 3
_KILLED = 137
"""The status of an agent that SIGKILL ended."""

_FAILED = frozenset({RunResult.CRASHED, RunResult.STALLED, RunResult.LOST})


def tell_end(agent: str, ending: Ending, lack: OutOfMemory | None) -> str:
    """Return how an agent's run ended; kills for lack of memory are why, where it failed."""
    told = _tell_result(agent, ending)
    if lack is None or classify_exit(ending) not in _FAILED:
        return told
    if ending.exit.status == _KILLED:
        return f"{agent} was killed {tell_lack(lack)}"
    return f"{told} after part of it was killed {tell_lack(lack)}"


def _tell_result(agent: str, ending: Ending) -> str:
    match classify_exit(ending):
        case RunResult.STALLED:
            return f"{agent} stalled"
        case RunResult.STOPPED:
            return f"{agent} was stopped"
        case RunResult.LOST:
            return f"{agent} was lost: {ending.exit.reason}"
        case RunResult.DEFERRED:
            return f"{agent} asked to be run later (exit 75)"
        case _:
            return f"{agent} exited with {ending.exit.status}"


def tell_lack(lack: OutOfMemory) -> str:
    """Return why processes were killed, and which: what follows the words "was killed"."""
    return f"{_tell_limit(lack)}: {_tell_victims(lack)}"


def _tell_limit(lack: OutOfMemory) -> str:
    if any(victim.machine for victim in lack.victims):
        return "as the machine ran out of memory"
    if lack.limit_bytes is not None:
        return f"for lack of memory (limit {format_size(lack.limit_bytes)})"
    where = "a limit not its own" if lack.victims else "the machine's, or a limit not its own"
    return f"for lack of memory ({where})"


def _tell_victims(lack: OutOfMemory) -> str:
    if not lack.victims:
        count = "one process" if lack.kills == 1 else f"{lack.kills} processes"
        return f"{count}, unknown which: {lack.untold or 'nobody has looked'}"
    named = lack.victims[:_MOST_NAMED]
    more = max(lack.kills, len(lack.victims)) - len(named)
    told = "; ".join(f"{victim.name}, pid {victim.pid}" for victim in named)
    return f"{told}; and {more} more" if more > 0 else told
