"""Where log lines go: journald's native protocol when there is a journal, else readable stderr.

The fields are FACTORY_ISSUE, FACTORY_AGENT, FACTORY_RUN, FACTORY_FACT, FACTORY_OFFSET, PRIORITY
and, for facts, MESSAGE_ID (systemd.journal-fields(7)).
"""

import logging
import sys
from collections.abc import Mapping

from logging_journald import JournaldTransport, check_journal_stream
from typing_extensions import override

from factoryd.core import labels
from factoryd.core.model import TreePlace

IDENTIFIER = "factoryd"
MAX_JOURNAL_LINE = 48 * 1024
"""journald cuts longer lines by default (LineMax= of journald.conf(5)), bytes."""

_PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class Journal:
    """A connection to journald that never blocks: what it does not take at once is dropped."""

    def __init__(self, socket_path: str | None = None) -> None:
        """Connect; raises `OSError` when no journal listens."""
        self._transport = JournaldTransport(socket_path)
        self._transport.socket.settimeout(0)
        self.dropped = 0

    def send(self, fields: Mapping[str, str | int | None]) -> None:
        """Send one entry; fields that are None are left out."""
        try:
            self._transport.send([(name, value) for name, value in fields.items()])
            self._transport.socket.settimeout(0)
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        """End the connection."""
        self._transport.socket.close()


class JournalHandler(logging.Handler):
    """Sends log records to the journal, labelled with the issue, agent and run at work."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        fact = getattr(record, "factory_fact", None)
        self._journal.send(
            {
                "MESSAGE": self.format(record),
                "PRIORITY": _PRIORITIES.get(record.levelno, 6),
                "SYSLOG_IDENTIFIER": IDENTIFIER,
                "LOGGER": record.name,
                "CODE_FILE": record.pathname,
                "CODE_LINE": record.lineno,
                "CODE_FUNC": record.funcName,
                "FACTORY_ISSUE": getattr(record, "factory_issue", None) or labels.ISSUE.get(),
                "FACTORY_AGENT": getattr(record, "factory_agent", None) or labels.AGENT.get(),
                "FACTORY_RUN": getattr(record, "factory_run", None) or labels.RUN.get(),
                "FACTORY_FACT": fact,
                "MESSAGE_ID": getattr(record, "message_id", None),
            }
        )


class JournalSink:
    """Forwards agents' output lines, each with its agent as identifier."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        """Send one line; `offset` is its place in the run's output file."""
        self._journal.send(
            {
                "MESSAGE": text[:MAX_JOURNAL_LINE],
                "PRIORITY": 6,
                "SYSLOG_IDENTIFIER": place.agent,
                "FACTORY_ISSUE": place.issue,
                "FACTORY_AGENT": place.agent,
                "FACTORY_RUN": place.run,
                "FACTORY_OFFSET": offset,
            }
        )


class SilentSink:
    """Forwards nothing: the lines are in their files."""

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        """Drop the line."""


class LabelFormatter(logging.Formatter):
    """Readable lines: time, weight, message; the issue in front where the message lacks it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        text = super().format(record)
        issue = labels.ISSUE.get()
        if issue is None or issue in text:
            return text
        return text.replace(record.getMessage(), f"{issue}: {record.getMessage()}", 1)


def connect_journal(environ: Mapping[str, str]) -> Journal | None:
    """Return a connection to the journal when our log goes there, None when it does not.

    It does when `$JOURNAL_STREAM` names our standard error (systemd.exec(5)).
    """
    if not environ.get("JOURNAL_STREAM"):
        return None
    try:
        return Journal() if check_journal_stream() else None
    except (OSError, ValueError):
        return None


def set_up_logging(journal: Journal | None, level: int = logging.INFO) -> None:
    """Send all log lines of this process to the journal, or to standard error without one."""
    handler: logging.Handler
    if journal is not None:
        handler = JournalHandler(journal)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LabelFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
