"""Log lines on their way to journald: a real socket plays the journal."""

import array
import logging
import os
import socket
import struct
import sys
from pathlib import Path

import pytest

from factoryd.adapters.journald import (
    MAX_JOURNAL_LINE,
    Journal,
    JournalHandler,
    JournalSink,
    LabelFormatter,
    SilentSink,
    SwitchedSink,
    connect_journal,
    set_up_logging,
)
from factoryd.core import labels
from factoryd.core.events import IssueDone, RunExited
from factoryd.core.model import Exit, RunId, TreePlace
from factoryd.core.narration import message_id
from factoryd.flow.ledger import log_fact

PLACE = TreePlace(run=RunId("ar-1-impl-0c"), issue="AR-1", agent="ar-1-impl", directory="/d")


class PlayedJournal:
    """Listens where journald would, and reads its native protocol."""

    def __init__(self, path):
        self.path = str(path)
        self.open()

    def open(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def close(self):
        self.socket.close()
        Path(self.path).unlink()

    def read(self):
        """Return the next entry's fields."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, payload in ancillary:
            with os.fdopen(array.array("i", payload)[0], "rb") as file:
                file.seek(0)
                data = file.read()
        fields = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", data[:8])
                value, data = data[8 : 8 + length], data[8 + length + 1 :]
            assert name.decode() not in fields
            fields[name.decode()] = value.decode()
        return fields

    def is_empty(self):
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def played(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    played = PlayedJournal("journal")
    yield played
    played.close()


@pytest.fixture
def journal(played):
    journal = Journal(played.path)
    yield journal
    journal.close()


@pytest.fixture
def logger(journal):
    """A logger whose lines go to the journal."""
    logger = logging.getLogger("factoryd.test")
    handler = JournalHandler(journal)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)


# ------------------------------------------------------------------------------------------ fields


def test_a_line_carries_its_weight_and_where_it_comes_from(played, logger):
    logger.warning("%s is late", "control")
    fields = played.read()
    assert fields["MESSAGE"] == "control is late"
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"]) == ("4", "factoryd")
    assert fields["LOGGER"] == "factoryd.test"
    assert fields["CODE_FILE"] == __file__
    assert not [name for name in fields if name.startswith(("FACTORY_", "MESSAGE_ID"))]


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.CRITICAL, 2), (logging.ERROR, 3), (logging.INFO, 6), (logging.DEBUG, 7), (25, 6)],
)
def test_levels_become_syslog_priorities(played, logger, level, priority):
    logger.log(level, "x")
    assert played.read()["PRIORITY"] == str(priority)


def test_a_fact_is_found_by_issue_agent_run_kind_and_message_id(played, journal):
    handler, root = JournalHandler(journal), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        log_fact(RunExited(issue="AR-1", run=PLACE.run, exit=Exit(status=0)))
        log_fact(IssueDone(issue="AR-1"))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    run, done = played.read(), played.read()
    wanted = ("FACTORY_ISSUE", "FACTORY_AGENT", "FACTORY_RUN", "FACTORY_FACT", "MESSAGE_ID")
    assert [run[name] for name in wanted] == [
        "AR-1",
        "ar-1-impl",
        "ar-1-impl-0c",
        "run-exited",
        message_id(RunExited),
    ]
    assert done["FACTORY_FACT"] == "issue-done"
    assert "FACTORY_RUN" not in done
    assert "FACTORY_AGENT" not in done


def test_the_task_at_work_labels_what_it_logs(played, logger):
    tokens = [
        (labels.ISSUE, labels.ISSUE.set("AR-2")),
        (labels.AGENT, labels.AGENT.set("ar-2-review")),
        (labels.RUN, labels.RUN.set("ar-2-review-9")),
    ]
    try:
        logger.info("hello")
        logger.info("of another", extra={"factory_issue": "AR-1", "factory_run": PLACE.run})
    finally:
        for variable, token in tokens:
            variable.reset(token)
    own, other = played.read(), played.read()
    names = ("FACTORY_ISSUE", "FACTORY_AGENT", "FACTORY_RUN")
    assert [own[name] for name in names] == ["AR-2", "ar-2-review", "ar-2-review-9"]
    assert [other[name] for name in names] == ["AR-1", "ar-1-impl", "ar-1-impl-0c"]


def test_a_message_of_many_lines_with_any_bytes_in_it_is_one_entry(played, logger):
    text = "first\nFACTORY_ISSUE=forged\n\n\0end\n"
    logger.info("%s", text)
    fields = played.read()
    assert fields["MESSAGE"] == text
    assert "FACTORY_ISSUE" not in fields


def test_an_error_keeps_its_traceback(played, logger):
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("failed")
    message = played.read()["MESSAGE"]
    assert message.startswith("failed\nTraceback")
    assert message.endswith("ValueError: why")


def test_text_that_cannot_be_encoded_is_sent_in_escapes(played, logger):
    logger.info("no such file: %s", os.fsdecode(b"caf\xe9"))
    assert played.read()["MESSAGE"] == "no such file: caf\\udce9"


def test_a_line_that_cannot_be_formatted_ends_nothing(played, journal, capsys):
    record = logging.LogRecord("n", logging.INFO, "p", 1, "%d", ("no number",), None)
    JournalHandler(journal).emit(record)
    assert "no number" in capsys.readouterr().err
    assert played.is_empty()


def test_a_message_too_large_for_a_datagram_arrives_all_the_same(played, logger):
    text = "x" * 3_000_000
    logger.info(text)
    assert played.read()["MESSAGE"] == text


# ---------------------------------------------------------------------------- agents' output lines


def test_a_line_of_an_agent_carries_its_agent_and_its_place(played, journal):
    JournalSink(journal).line(PLACE, 42, "working")
    assert played.read() == {
        "MESSAGE": "working",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "ar-1-impl",
        "FACTORY_ISSUE": "AR-1",
        "FACTORY_AGENT": "ar-1-impl",
        "FACTORY_RUN": "ar-1-impl-0c",
        "FACTORY_OFFSET": "42",
    }


def test_a_line_longer_than_journald_takes_is_cut(played, journal):
    JournalSink(journal).line(PLACE, 1, "y" * 1_000_000)
    assert len(played.read()["MESSAGE"]) == MAX_JOURNAL_LINE
    SilentSink().line(PLACE, 1, "nothing comes of it")
    assert played.is_empty()


# ---------------------------------------------------------------------- a journal that is not there


def test_a_full_journal_blocks_nobody_and_what_is_lost_is_counted(played, journal):
    sink = JournalSink(journal)
    while not journal.dropped:
        sink.line(PLACE, 1, "z" * 10_000)
    read = 0
    while not played.is_empty():
        played.read()
        read += 1
    assert read > 0
    sink.line(PLACE, 1, "again")
    assert played.read()["MESSAGE"] == "again"
    assert journal.dropped == 1


def test_a_journal_that_goes_and_comes_back_is_found_again(played, journal):
    sink = JournalSink(journal)
    played.close()
    for _ in range(3):
        sink.line(PLACE, 1, "lost")
    assert journal.dropped == 3
    played.open()
    sink.line(PLACE, 1, "found")
    assert played.read()["MESSAGE"] == "found"
    played.close()
    played.open()  # restarted between two lines: nothing is lost, nothing blocks
    while journal.dropped == 3:
        sink.line(PLACE, 1, "z" * 10_000)
    assert not played.is_empty()


# ---------------------------------------------------------------------------- whether there is one


def stream_of(descriptor):
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}"


def test_the_journal_is_used_when_standard_error_goes_there(played):
    journal = connect_journal({"JOURNAL_STREAM": stream_of(2)}, played.path)
    assert journal is not None
    journal.close()


@pytest.mark.parametrize("value", ["", "nonsense", "1:", ":", "1:2:3", "-1:-1"])
def test_any_other_journal_stream_means_standard_error(played, value):
    assert connect_journal({"JOURNAL_STREAM": value}, played.path) is None
    assert connect_journal({}, played.path) is None


def test_a_stream_that_somebody_else_was_given_does_not_count(played, tmp_path):
    with (tmp_path / "other").open("w") as other:
        assert connect_journal({"JOURNAL_STREAM": stream_of(other.fileno())}, played.path) is None


def test_a_stream_without_a_journal_means_standard_error(tmp_path):
    path = str(tmp_path / "nobody")
    assert connect_journal({"JOURNAL_STREAM": stream_of(2)}, path) is None


# ------------------------------------------------------------------------------------------ stderr


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_without_a_journal_lines_are_readable_on_standard_error(root_logger, capsys):
    set_up_logging(None)
    token = labels.ISSUE.set("AR-2")
    try:
        root_logger.info("stalled: %s", "no output")
        root_logger.info("AR-2: done")
        root_logger.debug("not shown")
    finally:
        labels.ISSUE.reset(token)
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("INFO    AR-2: stalled: no output")
    assert second.endswith("INFO    AR-2: done")


def test_with_a_journal_nothing_goes_to_standard_error(root_logger, journal, played, capsys):
    set_up_logging(journal)
    root_logger.info("there")
    assert played.read()["MESSAGE"] == "there"
    assert capsys.readouterr().err == ""


def test_a_traceback_is_shown_below_its_line():
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "failed", (), sys.exc_info())
    lines = LabelFormatter().format(record).splitlines()
    assert lines[0].endswith("ERROR   failed")
    assert lines[-1] == "ValueError: why"


def test_a_sink_that_is_switched_off_forwards_nothing_until_it_is_on_again():
    lines, wanted = [], [True]

    class Sink:
        def line(self, place, offset, text):
            lines.append((offset, text))

    sink = SwitchedSink(Sink(), lambda: wanted[0])
    sink.line(PLACE, 1, "a")
    wanted[0] = False
    sink.line(PLACE, 2, "b")
    wanted[0] = True
    sink.line(PLACE, 3, "c")
    assert lines == [(1, "a"), (3, "c")]
