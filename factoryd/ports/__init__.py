"""What the daemon needs from the world, as Protocols; adapters and fakes sit the same exams."""

from factoryd.ports.trees import (
    AgentKind,
    FoundTrees,
    OutputFollower,
    OutputSink,
    ProcessTrees,
    Progress,
    Tree,
)
from factoryd.ports.world import (
    Accounts,
    Clock,
    Desk,
    HeartbeatFile,
    IssueSource,
    LedgerStore,
    Notifier,
    Workspaces,
)

__all__ = [
    "Accounts",
    "AgentKind",
    "Clock",
    "Desk",
    "FoundTrees",
    "HeartbeatFile",
    "IssueSource",
    "LedgerStore",
    "Notifier",
    "OutputFollower",
    "OutputSink",
    "ProcessTrees",
    "Progress",
    "Tree",
    "Workspaces",
]
