"""Which issue, agent and run the present task works for: labels on everything it logs."""

from contextvars import ContextVar

ISSUE: ContextVar[str | None] = ContextVar("issue", default=None)
AGENT: ContextVar[str | None] = ContextVar("agent", default=None)
RUN: ContextVar[str | None] = ContextVar("run", default=None)
