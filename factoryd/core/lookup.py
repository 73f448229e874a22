"""Which process a recorded run is, told from a list of all processes.

Names are labels, never identity: who is found by name carries the run's id as well, and whoever is
found is verified again right before a signal.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from factoryd.core.model import Data, ProcessIdentity, RunId, TreePlace


class Seen(Data, frozen=True, kw_only=True):
    """A process as one scan saw it."""

    identity: ProcessIdentity
    ppid: int
    argv: tuple[str, ...]


class Scan(Data, frozen=True, kw_only=True):
    """Every process of the machine that had not ended, at one moment of one boot."""

    boot_id: str
    processes: tuple[Seen, ...] = ()


class ScanFailed(Data, frozen=True, kw_only=True):
    """The processes could not be listed, or not all of them."""

    reason: str


class Found(Data, frozen=True, kw_only=True):
    """The run's first process, for certain; only it may be signalled."""

    identity: ProcessIdentity


class Missing(Data, frozen=True, kw_only=True):
    """No process has that name."""


class Ambiguous(Data, frozen=True, kw_only=True):
    """Several have, and nothing says which of them is meant."""

    pids: tuple[int, ...]


class Unresolved(Data, frozen=True, kw_only=True):
    """Nobody could look: neither there nor gone."""

    reason: str


class Mismatch(Data, frozen=True, kw_only=True):
    """A process has that name, or that pid, and is another run's or nobody's."""

    pid: int
    reason: str


Lookup = Found | Missing | Ambiguous | Unresolved | Mismatch


class Known(Data, frozen=True, kw_only=True):
    """A tree as the ledger has it; `asked`: it had its stop signal and its grace already."""

    place: TreePlace
    identity: ProcessIdentity | None
    asked: bool = False

    @property
    def agent(self) -> str:
        """Return the agent's name; a run is named after its agent."""
        return self.place.agent or self.place.run.rpartition("-")[0]


class Alone(Data, frozen=True, kw_only=True):
    """What is left alone, and why; `unproven`: something of it may be running."""

    agent: str
    pid: int | None
    reason: str
    unproven: bool = False


class Sorted(Data, frozen=True, kw_only=True):
    """What may be emptied, and what is left alone."""

    owed: tuple[Known, ...]
    alone: tuple[Alone, ...]


def find_by_name(scan: Scan | ScanFailed, agent: str, run: RunId) -> Lookup:
    """Return the process of a run whose pid nobody recorded.

    It has `--agent-name AGENT` on its command line (or `--agent-name=AGENT`), whole words before
    any `--`. Of many, the one whose descendants all the others are; it must have `--run RUN` too.
    """
    if isinstance(scan, ScanFailed):
        return Unresolved(reason=scan.reason)
    named = {one.identity.pid: one for one in scan.processes if _says(one, "--agent-name", agent)}
    if not named:
        return Missing()
    parents = {one.identity.pid: one.ppid for one in scan.processes}
    tops = [pid for pid in named if not any(up in named for up in _list_ancestors(pid, parents))]
    if len(tops) != 1:
        return Ambiguous(pids=tuple(sorted(named)))
    (top,) = tops
    if not _says(named[top], "--run", run):
        return Mismatch(pid=top, reason="mismatch: it is the agent's by name, but of another run")
    return Found(identity=named[top].identity)


def find_again(scan: Scan | ScanFailed, identity: ProcessIdentity) -> Lookup:
    """Return whether a recorded process is still there."""
    if isinstance(scan, ScanFailed):
        return Unresolved(reason=scan.reason)
    if identity.boot_id != scan.boot_id:
        return Mismatch(pid=identity.pid, reason="lost in reboot")
    for one in scan.processes:
        if one.identity == identity:
            return Found(identity=identity)
        if one.identity.pid == identity.pid:
            return Mismatch(pid=identity.pid, reason="pid identity mismatch")
    return Missing()


def sort_out(known: Sequence[Known], scan: Scan | ScanFailed) -> Sorted:
    """Return which recorded trees may be emptied, with the identity of each, and which not.

    Besides those with a proven first process these are all that have a leaf of their own: what is
    in it belongs to the run, whoever its first process was. After a reboot nothing is any run's.
    """
    owed, alone = list[Known](), list[Alone]()
    for one in known:
        if one.identity is None:
            _resolve(one, scan, owed, alone)
            continue
        match find_again(scan, one.identity):
            case Mismatch(pid=pid, reason=reason):
                alone.append(Alone(agent=one.agent, pid=pid, reason=reason))
                if isinstance(scan, Scan) and one.identity.boot_id == scan.boot_id:
                    owed.append(one)
            case _:
                owed.append(one)
    return Sorted(owed=tuple(owed), alone=tuple(alone))


def _resolve(one: Known, scan: Scan | ScanFailed, owed: list[Known], alone: list[Alone]) -> None:
    """Sort a tree out whose first process nobody recorded."""
    lookup = find_by_name(scan, one.place.agent, one.place.run)
    if isinstance(lookup, Found):
        owed.append(Known(place=one.place, identity=lookup.identity, asked=one.asked))
        return
    has_leaf = one.place.cgroup is not None
    if has_leaf:
        owed.append(one)
    unproven = not has_leaf and not isinstance(lookup, Missing)
    alone += [
        Alone(agent=one.agent, pid=pid, reason=reason, unproven=unproven)
        for pid, reason in _say(lookup)
    ]


def _say(lookup: Missing | Ambiguous | Unresolved | Mismatch) -> Iterator[tuple[int | None, str]]:
    match lookup:
        case Missing():
            yield None, "missing: no process has its name"
        case Ambiguous(pids=pids):
            for pid in pids:
                yield pid, f"ambiguous: {len(pids)} processes have its name"
        case Unresolved(reason=reason):
            yield None, f"unresolved: {reason}"
        case Mismatch(pid=pid, reason=reason):
            yield pid, reason


def _says(one: Seen, option: str, value: str) -> bool:
    """Say whether an option has this value on a command line, before any `--`."""
    words = one.argv[: one.argv.index("--")] if "--" in one.argv else one.argv
    return f"{option}={value}" in words or (option, value) in pairwise(words)


def _list_ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """Yield those a process descends from; a ring, of parents read before a pid was reused, ends."""
    seen = {pid}
    while (pid := parents.get(pid, 0)) not in seen and pid > 0:
        seen.add(pid)
        yield pid
