"""The files of issues and runs, in memory, for tests to script."""

from factoryd.core.model import Issue, RunId, TreePlace


class FakeDesk:
    """See `ports.Desk`. A test may set `output` (an agent's lines, by its name) and read the rest."""

    def __init__(self) -> None:
        self.output: dict[str, list[str]] = {}
        self.issues: dict[str, str] = {}
        self.feedback: dict[str, str] = {}
        self.followed: dict[RunId, int] = {}
        self.directories: list[str] = []
        self.full = False

    def make_run_directory(self, key: str, run: RunId) -> str:
        self._need_space()
        self.directories.append(f"/fake/runs/{key}/{run}")
        return self.directories[-1]

    def write_issue(self, issue: Issue) -> str:
        self._need_space()
        self.issues[issue.key] = issue.body
        return self.issue_path(issue.key)

    def issue_path(self, key: str) -> str:
        return f"/fake/issues/{key}/issue.md"

    def write_feedback(self, key: str, text: str) -> None:
        self._need_space()
        self.feedback[key] = text

    def feedback_path(self, key: str) -> str:
        return f"/fake/issues/{key}/feedback.md"

    def note_followed(self, place: TreePlace, offset: int) -> None:
        self._need_space()
        self.followed[place.run] = offset

    def read_followed(self, place: TreePlace) -> int:
        return self.followed.get(place.run, 0)

    def read_tail(self, place: TreePlace, lines: int) -> list[tuple[int, str]]:
        found = [(n, text) for n, text in enumerate(self.output.get(place.agent, []), 1)]
        return found[-lines:] if lines else []

    def read_from(
        self, place: TreePlace, offset: int, *, to_the_end: bool
    ) -> list[tuple[int, str]]:
        return [one for one in self.read_tail(place, 1_000_000) if one[0] > offset]

    def find_run(self, key: str, run: RunId) -> TreePlace | None:
        directory = f"/fake/runs/{key}/{run}"
        if directory not in self.directories:
            return None
        agent = run.rpartition("-")[0]
        return TreePlace(run=run, issue=key, agent=agent, directory=directory)

    def forget(self, key: str) -> None:
        self.issues.pop(key, None)
        self.feedback.pop(key, None)

    def _need_space(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
