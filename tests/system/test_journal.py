"""A real daemon that writes to a journal, which a socket of the test plays."""

import subprocess
import sys
from contextlib import asynccontextmanager, closing
from signal import SIGTERM

import pytest
import trio

from tests.system.daemons import WITHIN_S, Daemon, Place, a_place, connect
from tests.unit.played_journal import PlayedJournal

pytestmark = pytest.mark.system

JOURNALED = """
import sys
from factoryd import __main__ as program
from factoryd.adapters.journald import Journal

path, *arguments = sys.argv[1:]
program.connect_journal = lambda environ: Journal(path)
sys.exit(program.main(arguments))
"""
"""A daemon whose journal is behind another socket."""


@asynccontextmanager
async def a_journaled_daemon(place: Place, played: PlayedJournal):
    with (place.root / "log").open("ab") as log:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", JOURNALED, played.path, *place.command()[3:]],
            env=place.environment(),
            cwd=place.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield Daemon(place, process)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def read_until(played: PlayedJournal, entries: list[dict[str, str]], is_last) -> None:
    """Add what comes to `entries` until one of them is the last."""
    while not any(map(is_last, entries)):
        if played.is_empty():
            await trio.sleep(0.01)
        else:
            entries.append(played.read())


def is_stopped(entry):
    return entry.get("FACTORY_FACT") == "daemon-stopped"


def is_outcome(entry):
    return entry.get("FACTORY_FACT") == "outcome-written"


@pytest.mark.timeout(90)
async def test_a_journal_that_nobody_reads_holds_up_no_work_and_gets_every_fact_later():
    with a_place(output="journal = true\njournal_rate = 0") as place:
        with closing(PlayedJournal(place.root / "journal")) as played:
            async with a_journaled_daemon(place, played) as daemon:
                for number in range(1, 6):
                    place.put(f"A-{number}", "seq 2000")
                for number in range(1, 6):
                    await daemon.wait_issue(f"A-{number}", "done")
                async with connect(place.socket) as client:
                    events = [reply async for reply in client.stream_of("Events")]
                facts = [fact for reply in events for fact in reply["facts"]]
                assert len(facts) > 40
                entries: list[dict[str, str]] = []
                with trio.fail_after(3 * WITHIN_S):
                    await read_until(played, entries, lambda one: "too slow" in one["MESSAGE"])
                    assert await daemon.stop() == 0
                    await read_until(played, entries, is_stopped)
        told = [
            (one["FACTORY_FACT"], one.get("FACTORY_ISSUE", ""))
            for one in entries
            if "FACTORY_FACT" in one
        ]
        assert told[: len(facts)] == [(fact["kind"], fact["issue"]) for fact in facts]


async def test_a_journal_that_is_gone_for_a_while_misses_no_fact():
    with a_place(output="journal = true") as place:
        with closing(PlayedJournal(place.root / "journal")) as played:
            async with a_journaled_daemon(place, played) as daemon:
                entries: list[dict[str, str]] = []
                with trio.fail_after(WITHIN_S):
                    await read_until(
                        played, entries, lambda one: one.get("FACTORY_FACT") == "daemon-started"
                    )
                    played.close()
                    place.put("A-1", "exit 0")
                    await daemon.wait_issue("A-1", "done")
                    played.open()
                    await read_until(played, entries, is_outcome)
                    assert await daemon.stop() == 0
                    await read_until(played, entries, is_stopped)
        mine = [one["FACTORY_FACT"] for one in entries if one.get("FACTORY_ISSUE") == "A-1"]
        wanted = ["issue-claimed", "attempt-started", "run-emptied", "issue-done"]
        assert [kind for kind in mine if kind in wanted] == wanted


async def test_of_an_agent_that_prints_too_much_the_journal_has_a_part_and_the_file_all():
    with a_place(output="journal = true\njournal_rate = 50") as place:
        with closing(PlayedJournal(place.root / "journal")) as played:
            async with a_journaled_daemon(place, played) as daemon:
                entries: list[dict[str, str]] = []
                with trio.fail_after(WITHIN_S):
                    place.put("A-1", "seq 20000")
                    await read_until(played, entries, is_outcome)
                    daemon.signal(SIGTERM)
                    await read_until(played, entries, lambda one: "withheld" in one["MESSAGE"])
                    assert await daemon.wait() == 0
        (output,) = place.state.glob("runs/A-1/*/output")
        assert output.read_text().splitlines() == [str(number) for number in range(1, 20001)]
        name = output.parent.name.rpartition("-")[0]
        said = [one for one in entries if one["SYSLOG_IDENTIFIER"] == name]
        assert [one["MESSAGE"] for one in said if "FACTORY_OFFSET" in one] == [
            str(number) for number in range(1, 51)
        ]
        (told,) = [one["MESSAGE"] for one in said if "FACTORY_OFFSET" not in one]
        assert told.startswith("lines withheld here: 19950, as journal_rate allows no more;")
