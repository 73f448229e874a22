"""What one agent is to do in one run, and what it is told about it."""

from factoryd.core.config import AgentConfig
from factoryd.core.model import Data, Issue, RunId


class Assignment(Data, frozen=True, kw_only=True):
    """An agent's part in a stage: everything its program is told."""

    issue: Issue
    agent: str
    role: str
    config: AgentConfig
    attempt: int
    round: int
    stage: int
    workspace: str
    issue_file: str
    socket: str
    feedback_file: str | None = None


def agent_name(key: str, role: str, config: AgentConfig) -> str:
    """Return an agent's name: the issue's key in lower case and the name from its configuration."""
    return f"{key.lower()}-{config.name or role}"


def factory_variables(work: Assignment, run: RunId, session: str | None) -> dict[str, str]:
    """Return the FACTORY_* variables of an agent's environment."""
    variables = {
        "FACTORY_ISSUE": work.issue.key,
        "FACTORY_ISSUE_FILE": work.issue_file,
        "FACTORY_TITLE": work.issue.title,
        "FACTORY_AGENT": work.agent,
        "FACTORY_ROLE": work.role,
        "FACTORY_ATTEMPT": str(work.attempt),
        "FACTORY_ROUND": str(work.round),
        "FACTORY_RUN": run,
        "FACTORY_SESSION": session or "",
        "FACTORY_WORKSPACE": work.workspace,
        "FACTORY_SOCKET": work.socket,
    }
    if work.feedback_file is not None:
        variables["FACTORY_FEEDBACK_FILE"] = work.feedback_file
    return {name: text.replace("\0", "") for name, text in variables.items()}


def placeholder_values(work: Assignment, run: RunId, session: str | None) -> dict[str, str]:
    """Return what the placeholders of a command stand for (`template.PLACEHOLDERS`)."""
    return {
        "issue.key": work.issue.key,
        "issue.title": work.issue.title,
        "issue_file": work.issue_file,
        "workspace": work.workspace,
        "round": str(work.round),
        "attempt": str(work.attempt),
        "session": session or "",
        "run": run,
    }
