"""An issue source in memory, for tests to script."""

from collections.abc import Callable, Sequence

import msgspec
import trio

from factoryd.adapters.sources.front_matter import Malformed, parse_issue
from factoryd.core.errors import BadUsage, SourceFailed
from factoryd.core.model import Closed, Issue, IssueState, Listing, OutcomeNote, Problem


class FakeSource:
    """Holds issues as its test puts them there, and remembers what was done to them.

    A test may set `failure` (raised by every call while set), `before` (awaited by every call
    with the name of the method, to delay or hang it), and read `calls` and `outcomes`.
    """

    def __init__(self, name: str = "fake") -> None:
        self._name = name
        self.ready: dict[str, Issue] = {}
        self.active: dict[str, Issue] = {}
        self.ended: dict[str, Issue] = {}
        self.closed: dict[str, IssueState] = {}
        self.problems: list[Problem] = []
        self.outcomes: dict[str, list[OutcomeNote]] = {}
        self.calls: list[tuple[str, str]] = []
        self.failure: str | None = None
        self.watching = False
        self.before: Callable[[str], trio.Event | None] = lambda _: None
        self._changed = trio.Event()
        self._version = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> str:
        return "fake"

    def put(self, issue: Issue) -> Issue:
        """Make an issue ready, new or in place of an older copy; return it as the source shows it."""
        self._version += 1
        shown = msgspec.structs.replace(
            issue,
            source=self._name,
            ref=issue.ref or f"{issue.key}.md",
            version=str(self._version),
        )
        self.ready[issue.key] = shown
        self.closed.pop(issue.key, None)
        self.touch()
        return shown

    def take_away(self, key: str) -> None:
        """Remove an issue, wherever it is."""
        self.ready.pop(key, None)
        self.active.pop(key, None)
        self.ended.pop(key, None)
        self.closed.pop(key, None)
        self.touch()

    def put_away(self, key: str, outcome: IssueState) -> None:
        """End an issue as a person does, without being asked to."""
        place = self.active if key in self.active else self.ready
        self.ended[key] = place.pop(key)
        self.closed[key] = outcome
        self.touch()

    def touch(self) -> None:
        """Wake whoever waits for a change."""
        self._changed.set()

    async def list_ready(self) -> Listing:
        self._changed = trio.Event()
        await self._begin("list_ready", "")
        self.watching = True
        issues = tuple(issue for key, issue in self.ready.items() if key not in self.active)
        copies = tuple(key for key in self.ready if key in self.active)
        return Listing(issues=issues, problems=tuple(self.problems), copies=copies)

    async def wait_change(self) -> None:
        await self._changed.wait()

    async def read(self, issue: Issue) -> Issue | None:
        await self._begin("read", issue.key)
        return self.active.get(issue.key) or self.ready.get(issue.key)

    async def find_closed(self, claimed: Sequence[Issue]) -> Sequence[Closed]:
        await self._begin("find_closed", "")
        return [
            Closed(key=issue.key, outcome=self.closed.get(issue.key))
            for issue in claimed
            if issue.key not in self.ready and issue.key not in self.active
        ]

    async def claim(self, issue: Issue) -> Issue | None:
        await self._begin("claim", issue.key)
        if issue.key in self.ready:
            if issue.key in self.active:
                raise SourceFailed(f"{issue.key}: a claimed one is in the way")
            self.active[issue.key] = self.ready.pop(issue.key)
            self.touch()
        elif issue.key not in self.active:
            raise SourceFailed(f"{issue.key}: is no longer there")
        return self.active[issue.key]

    async def write_outcome(self, issue: Issue, note: OutcomeNote) -> None:
        await self._begin("write_outcome", issue.key)
        notes = self.outcomes.setdefault(issue.key, [])
        if note not in notes:
            notes.append(note)
        if issue.key in self.active:
            self.ended[issue.key] = self.active.pop(issue.key)

    async def reopen(self, issue: Issue) -> None:
        await self._begin("reopen", issue.key)
        if issue.key not in self.ready:
            left = self.active.pop(issue.key, None) or self.ended.pop(issue.key, None)
            if left is None:
                raise SourceFailed(f"{issue.key}: is no longer there")
            self.ready[issue.key] = left
            self.touch()

    async def submit(self, name: str, text: str) -> str:
        await self._begin("submit", name)
        try:
            parsed = parse_issue(text.encode())
        except (Malformed, UnicodeEncodeError) as error:
            raise BadUsage(f"{name!a}: {error}") from error
        for key in (*self.ready, *self.active):
            if parsed.key.casefold() == key.casefold():
                raise BadUsage(f"{name!a}: {key} is there already")
        self.put(
            Issue(
                key=parsed.key,
                title=parsed.title,
                body=parsed.body,
                labels=parsed.labels,
                priority=parsed.priority,
                team=parsed.team,
                project=parsed.project,
                url=parsed.url,
                repo=parsed.repo,
                recipe=parsed.recipe,
            )
        )
        return parsed.key

    def close(self) -> None:
        self.watching = False

    async def _begin(self, method: str, subject: str) -> None:
        self.calls.append((method, subject))
        await trio.lowlevel.checkpoint()
        if (gate := self.before(method)) is not None:
            await gate.wait()
        if self.failure is not None:
            raise SourceFailed(self.failure)
