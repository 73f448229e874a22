"""Where log lines go: journald's native protocol when there is a journal, else readable stderr.

The fields are FACTORY_ISSUE, FACTORY_AGENT, FACTORY_RUN, FACTORY_FACT, FACTORY_OFFSET, PRIORITY
and, for facts, MESSAGE_ID (systemd.journal-fields(7)).
"""

import errno
import logging
import os
import socket
import sys
import threading  # noqa: TID251 (a lock: what runs in trio's threads logs, too)
from collections import deque
from collections.abc import Callable, Mapping

from logging_journald import JournaldTransport
from typing_extensions import override

from factoryd.core import labels
from factoryd.core.narration import FACTS_LOGGER

IDENTIFIER = "factoryd"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
MAX_JOURNAL_LINE = 48 * 1024
"""journald cuts longer lines by default (LineMax= of journald.conf(5)), bytes."""

MAX_KEPT_BYTES = 8 * 1024 * 1024
"""How much is kept for a journald that takes nothing."""

MAX_KEPT_OUTPUT_BYTES = 1024 * 1024
"""Once so much is kept, lines of output are not."""

Fields = Mapping[str, str | int | None]

_SENT_AT_ONCE = 1000
_SEND_BUFFER_BYTES = 8 * 1024 * 1024  # as sd-journal has it; the kernel gives what it allows
_NOT_NOW = {
    errno.EAGAIN,  # slow: its queue is full
    errno.ECONNREFUSED,  # gone: nobody reads from its socket
    errno.ENOENT,  # gone, socket and all
    errno.EMFILE,  # a large entry goes in a file of its own
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
}
_PASSED_OVER = (
    "lines of agents' output that journald was too slow for: {}; factoryctl logs has all of them"
)
_LOST = (
    "entries of factoryd that journald did not take for too long: {};"
    " factoryctl events has all facts"
)

_PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class Journal:
    """The way to journald, which never blocks: journald may be slow, gone, or come back.

    What it does not take at once is kept, in order, and sent with the next entry or by `keep_up`.
    What there is no room for is counted; lines of output, which are in their files, have less of it.
    """

    def __init__(self, socket_path: str = JOURNAL_SOCKET) -> None:
        """Raises `OSError` when no journal listens; it may go and come back later."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(socket_path)
        # Not connected: each entry finds its own way, also to a journal that was restarted.
        self._transport = JournaldTransport(socket_path, connected=False)
        self._transport.socket.settimeout(0)
        self._transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._lock = threading.Lock()
        self._kept: deque[Fields] = deque()
        self._kept_bytes = 0
        self.passed_over = 0
        """Lines of output that journald did not take, and that no entry tells of yet."""
        self.lost = 0
        """The same of other entries, for which there was no more room."""
        self.wanted: Callable[[], None] = lambda: None
        """Called, in any thread, when something is kept, counted or withheld: see `keep_up`."""

    @property
    def is_behind(self) -> bool:
        """Say whether something is kept."""
        return bool(self._kept)

    @property
    def is_even(self) -> bool:
        """Say whether journald has everything, or was told what is missing."""
        return not (self._kept or self.passed_over or self.lost)

    def send(self, fields: Fields) -> None:
        """Send an entry of the daemon, now or later; fields that are None are left out."""
        with self._lock:
            if not self._deliver(fields, MAX_KEPT_BYTES):
                self.lost += 1

    def offer(self, fields: Fields) -> None:
        """Send a line of output, now, later or not at all."""
        with self._lock:
            if not self._deliver(fields, MAX_KEPT_OUTPUT_BYTES):
                self.passed_over += 1

    def catch_up(self) -> None:
        """Send what was kept as far as it is taken, then say what is missing."""
        with self._lock:
            if not self._send_kept():
                return
            if self.passed_over and self._take(_own(logging.INFO, _PASSED_OVER, self.passed_over)):
                self.passed_over = 0
            if self.lost and self._take(_own(logging.WARNING, _LOST, self.lost)):
                self.lost = 0

    def close(self) -> None:
        """Send no more."""
        self._transport.socket.close()

    def _deliver(self, fields: Fields, room: int) -> bool:
        """Send or keep an entry; False when more than `room` would be kept then."""
        if self._send_kept() and self._take(fields):
            return True
        self.wanted()
        size = _measure(fields)
        if self._kept_bytes + size > room:
            return False
        self._kept.append(fields)
        self._kept_bytes += size
        return True

    def _send_kept(self) -> bool:
        """Send what was kept, oldest first, and say whether all of it is sent."""
        for _ in range(min(len(self._kept), _SENT_AT_ONCE)):
            if not self._take(self._kept[0]):
                break
            self._kept_bytes -= _measure(self._kept.popleft())
        return not self._kept

    def _take(self, fields: Fields) -> bool:
        """Say whether journald has taken an entry; one that it never could counts as lost."""
        try:
            self._transport.send([(name, _clean(value)) for name, value in fields.items()])
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            self.lost += 1
        return True


def _own(level: int, message: str, number: int) -> Fields:
    return {
        "MESSAGE": message.format(number),
        "PRIORITY": _PRIORITIES[level],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }


def _measure(fields: Fields) -> int:
    """Return about how many bytes an entry holds in memory."""
    return sum(100 + len(value) if isinstance(value, str) else 100 for value in fields.values())


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

    @override
    def flush(self) -> None:
        """Send what was kept, as far as it is taken; called at the end of the program, too."""
        self._journal.catch_up()


def _label(record: logging.LogRecord, name: str) -> str | None:
    value = getattr(record, name, None)
    return value if isinstance(value, str) else None


def _agent_of(run: str | None) -> str | None:
    """Return the agent that a run is named after (`ar-1-impl-0c41…`)."""
    return run.rpartition("-")[0] or None if run else None


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
    """Send all log lines of this process to the journal, or to standard error without one.

    The journal is told every fact, whatever its weight: its readers choose by priority.
    """
    handler: logging.Handler
    if journal is not None:
        handler = JournalHandler(journal)
        logging.getLogger(FACTS_LOGGER).setLevel(logging.DEBUG)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LabelFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
