"""Log lines on their way to journald: a real socket plays the journal."""

import logging
import os
import socket
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from factoryd.adapters.forwarding import JournalSink, SilentSink, SwitchedSink, keep_up
from factoryd.adapters.journald import (
    MAX_JOURNAL_LINE,
    MAX_KEPT_BYTES,
    Journal,
    JournalHandler,
    LabelFormatter,
    connect_journal,
    set_up_logging,
)
from factoryd.core import labels
from factoryd.core.events import IssueDone, RunExited, StageStarted
from factoryd.core.model import Exit, RunId, TreePlace
from factoryd.core.narration import FACTS_LOGGER, message_id
from factoryd.flow.ledger import log_fact
from tests.unit.played_journal import PlayedJournal

PLACE = TreePlace(run=RunId("ar-1-impl-0c"), issue="AR-1", agent="ar-1-impl", directory="/d")


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
    text = "x" * 30_000_000
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


# ------------------------------------------------------------------- more lines than there should be

RUN_ENDS_WITH = "factoryctl logs --run ar-1-impl-0c ar-1-impl has all of them"


@pytest.fixture
def now():
    """The moment that a sink's clock shows, to be changed."""
    return [100.0]


@pytest.fixture
def sink(journal, now):
    """A sink that passes on three lines of a run in half a minute."""
    return JournalSink(journal, rate=lambda: 3, clock=lambda: now[0])


def read_all(played, journal=None):
    """Return all entries; those that `journal` has kept follow as there is room for them."""
    found = []
    while not played.is_empty():
        found.append(played.read())
        if journal is not None and played.is_empty():
            journal.catch_up()
    return found


def messages(entries):
    return [entry["MESSAGE"] for entry in entries]


def test_lines_above_the_rate_are_withheld_and_one_entry_counts_them(played, sink, now):
    for number in range(8):
        sink.line(PLACE, number, f"line {number}")
    assert messages(read_all(played)) == ["line 0", "line 1", "line 2"]
    now[0] += 29.9
    sink.tell_withheld()
    sink.line(PLACE, 8, "still too many")
    assert played.is_empty()
    now[0] += 0.2
    sink.line(PLACE, 9, "passes again")
    told, line = read_all(played)
    assert told["MESSAGE"].startswith("lines withheld here: 6, as journal_rate allows no more")
    assert told["MESSAGE"].endswith(RUN_ENDS_WITH)
    wanted = ("SYSLOG_IDENTIFIER", "FACTORY_ISSUE", "FACTORY_AGENT", "FACTORY_RUN", "PRIORITY")
    assert [told[name] for name in wanted] == ["ar-1-impl", "AR-1", "ar-1-impl", PLACE.run, "5"]
    assert line["MESSAGE"] == "passes again"
    sink.tell_withheld(last=True)
    assert played.is_empty()


def test_what_was_withheld_is_told_though_nothing_follows_it(played, sink, now):
    for number in range(5):
        sink.line(PLACE, number, f"line {number}")
    read_all(played)
    now[0] += 30
    sink.tell_withheld()
    assert played.read()["MESSAGE"].startswith("lines withheld here: 2,")
    for number in range(5):
        sink.line(PLACE, number, f"line {number}")
    read_all(played)
    sink.tell_withheld(last=True)
    assert played.read()["MESSAGE"].startswith("lines withheld here: 2,")


def test_one_run_that_prints_much_costs_the_others_nothing(played, sink, now):
    other = TreePlace(run=RunId("ar-2-impl-1"), issue="AR-2", agent="ar-2-impl", directory="/d")
    for number in range(100):
        sink.line(PLACE, number, "much")
    read_all(played)
    sink.line(other, 1, "little")
    assert played.read()["MESSAGE"] == "little"


def test_runs_that_are_over_leave_nothing_behind_in_the_sink(sink, now, played):
    for number in range(2000):
        sink.line(TreePlace(run=RunId(f"r-{number}"), issue="", agent="", directory=""), 1, "x")
    now[0] += 60
    sink.tell_withheld()
    assert not sink._throttles


def test_without_a_rate_every_line_passes(played, journal):
    sink = JournalSink(journal, rate=lambda: 0)
    for number in range(500):
        sink.line(PLACE, number, "x")
        assert played.read()["FACTORY_OFFSET"] == str(number)


# ---------------------------------------------------------------------- a journal that is not there


def fill(journal):
    """Print until the journal takes no more and no more is kept; return how many lines fitted."""
    sink, sent = JournalSink(journal), 0
    while not journal.passed_over:
        sink.line(PLACE, 1, f"{sent} ".ljust(10_000, "z"))
        sent += 1
    return sent - 1


def test_a_full_journal_blocks_nobody_and_what_is_missing_is_counted_once(played, journal):
    fitted = fill(journal)
    JournalSink(journal).line(PLACE, 2, "passed over, too".ljust(10_000, "z"))
    journal.catch_up()  # still full: nothing can be said
    *lines, told = read_all(played, journal)
    assert [int(line["MESSAGE"].split()[0]) for line in lines] == list(range(fitted))
    assert told["MESSAGE"].startswith("lines of agents' output that journald was too slow for: 2;")
    assert (told["SYSLOG_IDENTIFIER"], told["PRIORITY"]) == ("factoryd", "6")
    journal.catch_up()
    assert played.is_empty()
    JournalSink(journal).line(PLACE, 3, "again")
    assert played.read()["MESSAGE"] == "again"


def test_a_burst_of_lines_is_taken_as_the_journal_has_room_for_it(played, journal):
    sink = JournalSink(journal)
    for number in range(1000):
        sink.line(PLACE, number, "a line of an agent that prints much at once")
    assert journal.is_behind
    offsets = [entry["FACTORY_OFFSET"] for entry in read_all(played, journal)]
    assert offsets == [str(number) for number in range(1000)]
    assert not journal.is_behind


def test_entries_of_the_daemon_have_room_where_lines_of_output_have_none(played, journal, logger):
    fitted = fill(journal)
    for number in range(1500):
        logger.info("fact %d", number)
    entries = messages(read_all(played, journal))
    assert entries[fitted:-1] == [f"fact {number}" for number in range(1500)]
    assert entries[-1].startswith("lines of agents' output")
    assert journal.passed_over == journal.lost == 0


def test_no_line_of_output_overtakes_what_is_kept(played, journal, logger):
    played.close()
    logger.info("first")
    played.open()
    JournalSink(journal).line(PLACE, 1, "second")
    assert messages(read_all(played)) == ["first", "second"]


def test_a_journal_that_goes_and_comes_back_gets_what_was_kept(played, journal, logger):
    sink = JournalSink(journal)
    played.close()
    for number in range(3):
        logger.info("fact %d", number)
        sink.line(PLACE, number, f"line {number}")
    played.open()
    logger.info("found")
    wanted = [f"{what} {number}" for number in range(3) for what in ("fact", "line")]
    assert messages(read_all(played)) == [*wanted, "found"]


def test_a_journal_that_is_restarted_between_two_lines_is_found_at_once(played, journal, logger):
    logger.info("before")
    played.close()
    played.open()
    logger.info("after")
    assert messages(read_all(played)) == ["after"]


def test_a_socket_that_nobody_reads_from_any_more_is_a_journal_that_is_gone(
    played, journal, logger
):
    played.socket.close()  # what a journald that was killed leaves, unless systemd holds it
    logger.info("kept")
    Path(played.path).unlink()
    played.open()
    journal.catch_up()
    assert messages(read_all(played)) == ["kept"]


def test_what_is_kept_is_bounded_and_what_is_lost_is_counted(played, journal, logger):
    played.close()
    text = "x" * 100_000
    for _ in range(200):
        logger.info(text)
    played.open()
    journal.catch_up()
    entries = read_all(played, journal)
    *kept, told = entries
    assert 60 < len(kept) <= MAX_KEPT_BYTES // len(text)
    assert f"did not take for too long: {200 - len(kept)};" in told["MESSAGE"]
    assert told["PRIORITY"] == "4"


def test_an_entry_that_can_never_be_sent_stands_in_no_others_way(played, journal, logger):
    played.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wrong:
        wrong.bind(played.path)
        logger.info("to nobody")
    Path(played.path).unlink()
    assert journal.lost == 1
    played.open()
    logger.info("to the journal")
    assert played.read()["MESSAGE"] == "to the journal"


def test_the_end_of_the_program_is_one_more_chance(played, journal):
    handler = JournalHandler(journal)
    played.close()
    handler.emit(logging.LogRecord("n", logging.INFO, "p", 1, "last", (), None))
    played.open()
    handler.flush()
    assert played.read()["MESSAGE"] == "last"


async def test_while_the_daemon_runs_it_catches_up_by_itself(
    autojump_clock, played, journal, logger, now
):
    sink = JournalSink(journal, rate=lambda: 3, clock=lambda: now[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_up, journal, sink)
        await trio.testing.wait_all_tasks_blocked()
        played.close()
        logger.info("kept")
        played.open()
        for number in range(4):
            sink.line(PLACE, number, "line")
        now[0] += 30
        await trio.sleep(2)
        *_, told = messages(read_all(played))
        assert told.startswith("lines withheld here: 1,")
        played.close()
        logger.info("at the end")
        played.open()
        nursery.cancel_scope.cancel(reason="the test is over")
    assert messages(read_all(played)) == ["at the end"]


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
    root, facts = logging.getLogger(), logging.getLogger(FACTS_LOGGER)
    handlers, level, facts_level = root.handlers[:], root.level, facts.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    facts.setLevel(facts_level)


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


def test_the_journal_has_facts_of_every_weight_and_standard_error_those_that_matter(
    root_logger, journal, played, capsys
):
    fact = StageStarted(issue="AR-1", round=1, stage=0)
    set_up_logging(None)
    log_fact(fact)
    assert capsys.readouterr().err == ""
    set_up_logging(journal)
    log_fact(fact)
    fields = played.read()
    assert (fields["FACTORY_FACT"], fields["PRIORITY"]) == ("stage-started", "7")
    root_logger.debug("what is no fact stays out")
    assert played.is_empty()


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
