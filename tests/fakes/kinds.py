"""An agent kind that remembers what its agents were told."""

from factoryd.core.assignment import Assignment, factory_variables
from factoryd.core.model import Command, RunId


class FakeKind:
    """See `ports.AgentKind`. A test may set `error` (raised by every call while set)."""

    def __init__(self) -> None:
        self.told: list[Assignment] = []
        self.error: Exception | None = None

    def command(self, work: Assignment, run: RunId, session: str | None) -> Command:
        if self.error is not None:
            raise self.error
        self.told.append(work)
        return Command(
            argv=(work.agent,), env=factory_variables(work, run, session), cwd=work.workspace
        )
