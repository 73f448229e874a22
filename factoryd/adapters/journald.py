"""Where log lines go: journald's native protocol when there is a journal, else readable stderr.

The fields are FACTORY_ISSUE, FACTORY_AGENT, FACTORY_RUN, FACTORY_FACT, FACTORY_OFFSET, PRIORITY
and, for facts, MESSAGE_ID (systemd.journal-fields(7)).
"""

import logging
import os
import socket
import sys
from collections.abc import Mapping

from logging_journald import JournaldTransport
from typing_extensions import override

from factoryd.core import labels
from factoryd.core.model import TreePlace

IDENTIFIER = "factoryd"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
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
    """The way to journald. It never blocks: what the journal does not take at once is dropped."""

    def __init__(self, socket_path: str = JOURNAL_SOCKET) -> None:
        """Raises `OSError` when no journal listens; it may go and come back later."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(socket_path)
        # Not connected: each entry finds its own way, also to a journal that was restarted.
        self._transport = JournaldTransport(socket_path, connected=False)
        self._transport.socket.settimeout(0)
        self.dropped = 0

    def send(self, fields: Mapping[str, str | int | None]) -> None:
        """Send one entry; fields that are None are left out. Never raises `OSError`."""
        try:
            self._transport.send([(name, _clean(value)) for name, value in fields.items()])
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        """Send no more."""
        self._transport.socket.close()


def _clean(value: str | int | None) -> str | int | None:
    """Return a value that can be encoded: a name of a file need not be text."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


class JournalHandler(logging.Handler):
    """Sends log records to the journal, labelled with the issue, agent and run at work."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; one that cannot be formatted is reported as other handlers do."""
        try:
            message = self.format(record)
        except Exception:  # noqa: BLE001  a log line must not end what it tells about
            self.handleError(record)
            return
        run = _label(record, "factory_run")
        agent = _label(record, "factory_agent") or _agent_of(run) or labels.AGENT.get()
        self._journal.send(
            {
                "MESSAGE": message,
                "PRIORITY": _PRIORITIES.get(record.levelno, 6),
                "SYSLOG_IDENTIFIER": IDENTIFIER,
                "LOGGER": record.name,
                "CODE_FILE": record.pathname,
                "CODE_LINE": record.lineno,
                "CODE_FUNC": record.funcName,
                "FACTORY_ISSUE": _label(record, "factory_issue") or labels.ISSUE.get(),
                "FACTORY_AGENT": agent,
                "FACTORY_RUN": run or labels.RUN.get(),
                "FACTORY_FACT": _label(record, "factory_fact"),
                "MESSAGE_ID": _label(record, "message_id"),
            }
        )


def _label(record: logging.LogRecord, name: str) -> str | None:
    value = getattr(record, name, None)
    return value if isinstance(value, str) else None


def _agent_of(run: str | None) -> str | None:
    """Return the agent that a run is named after (`ar-1-impl-0c41…`)."""
    return run.rpartition("-")[0] or None if run else None


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

    _second = 0
    _time = ""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        message, issue = record.getMessage(), labels.ISSUE.get()
        if issue is not None and issue not in message:
            message = f"{issue}: {message}"
        if self._second != int(record.created):  # of many lines, few are the first of a second
            self._second, self._time = int(record.created), self.formatTime(record, "%H:%M:%S")
        text = f"{self._time} {record.levelname:<7} {message}"
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        return text


def connect_journal(
    environ: Mapping[str, str], socket_path: str = JOURNAL_SOCKET
) -> Journal | None:
    """Return the way to the journal when our log goes there, None when it does not.

    It does when `$JOURNAL_STREAM` names our standard error, by device and inode (systemd.exec(5)).
    """
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stderr = os.fstat(2)
        if (stderr.st_dev, stderr.st_ino) != (int(device), int(inode)):
            return None
        return Journal(socket_path)
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
