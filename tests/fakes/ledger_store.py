"""A ledger in memory, for tests to script."""

from collections.abc import Callable, Iterable, Sequence

from factoryd.core.errors import IllegalFact, LedgerUnavailable
from factoryd.core.events import Entry, Fact, Recorded, decode_fact, encode_fact
from factoryd.core.records import same_issue


class FakeStore:
    """See `ports.LedgerStore`.

    A test may set `refusal` (raised by every write while set) and `before` (called by every
    `append` first, in whatever thread that runs), and read `facts` and `snapshots`.
    """

    def __init__(self) -> None:
        self.facts: list[Recorded] = []
        self.snapshots: dict[int, bytes] = {}
        self.held: set[str] = set()
        self.refusal: str | None = None
        self.before: Callable[[Sequence[Entry]], None] = lambda _: None
        self._seq = 0

    def load(self) -> tuple[bytes | None, Iterable[Recorded]]:
        since = max(self.snapshots, default=0)
        after = [one for one in self.facts if one.seq > since]
        return self.snapshots.get(since), after

    def append(self, entries: Sequence[Entry]) -> list[Recorded]:
        self.before(entries)
        self._refuse()
        held = set(self.held)
        for entry in entries:
            held.discard(entry.frees or "")
            if entry.takes is not None and entry.takes in held:
                raise IllegalFact(f"{entry.fact.issue}: {entry.takes} is still held")
            held |= {entry.takes} if entry.takes is not None else set()
        bodies = [encode_fact(entry.fact) for entry in entries]
        recorded = [
            Recorded(seq=self._seq + n, at=entry.at, fact=decode_fact(body))
            for n, (entry, body) in enumerate(zip(entries, bodies, strict=True), 1)
        ]
        self.held = held
        self._seq += len(recorded)
        self.facts += recorded
        return recorded

    def save_snapshot(self, seq: int, body: bytes) -> None:
        self._refuse()
        self.snapshots[seq] = body
        self.snapshots = {at: kept for at, kept in self.snapshots.items() if at >= seq}

    def read_facts(self, since: int, limit: int, issue: str | None) -> list[Recorded]:
        wanted = None if issue is None else same_issue(issue)
        found = [
            one
            for one in self.facts
            if one.seq > since and (wanted is None or same_issue(one.fact.issue) == wanted)
        ]
        return found[:limit]

    def read_newest(self, kinds: Sequence[type[Fact]], before: int, limit: int) -> list[Recorded]:
        found = [
            one for one in self.facts if one.seq < before and isinstance(one.fact, tuple(kinds))
        ]
        return found[::-1][:limit]

    def forget(self, issues: Sequence[str], up_to: int, daemon_before: float) -> None:
        self._refuse()
        keys = {same_issue(key) for key in issues}

        def goes(one: Recorded) -> bool:
            key = same_issue(one.fact.issue)
            old = key == "" and one.at < daemon_before
            return one.seq <= up_to and (old or (key != "" and key in keys))

        self.facts = [one for one in self.facts if not goes(one)]

    def close(self) -> None:
        pass

    def copy(self) -> "FakeStore":
        """Return a store that holds what this one does now, whatever happens to this one."""
        other = FakeStore()
        other.facts, other.snapshots = list(self.facts), dict(self.snapshots)
        other.held, other._seq = set(self.held), self._seq
        return other

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise LedgerUnavailable(self.refusal)
