"""What `journalctl -x` says about facts."""

import contextlib
import logging
import re
import shlex
import shutil
import subprocess

import pytest

import factoryd.__main__ as daemon
from factoryctl import arguments
from factoryd.adapters.journald import Journal, JournalHandler
from factoryd.core.events import KINDS, kind_of
from factoryd.core.explanations import EXPLANATIONS, write_catalog
from factoryd.core.narration import FACTS_LOGGER, message_id
from factoryd.flow.ledger import log_fact
from tests.unit.played_journal import PlayedJournal
from tests.unit.samples import one_of_each

FIELD = re.compile("@([A-Z_]+)@")
COMMAND = re.compile("`((?:factoryd|factoryctl|journalctl) [^`]+)`")
ENTRY = re.compile("-- ([0-9a-f]{32})")


def read_catalog(text: str) -> dict[str, str]:
    """Return the entries by id, as journalctl reads them (systemd.io/CATALOG)."""
    entries: dict[str, list[str]] = {}
    lines, after_empty = [], True
    for line in text.splitlines():
        if line.startswith(("#", ";")):
            continue
        found = ENTRY.fullmatch(line) if after_empty else None
        if found:
            assert found[1] not in entries
            lines = entries.setdefault(found[1], [])
        else:
            lines.append(line)
        after_empty = not line
    return {name: "\n".join(lines).strip() for name, lines in entries.items()}


def test_every_kind_of_fact_is_explained():
    assert set(EXPLANATIONS) == set(KINDS)
    for text in EXPLANATIONS.values():
        assert len(text.subject) < 78
        assert "\n" not in text.subject + text.meaning + text.advice
        assert text.advice.endswith(".")
        assert text.meaning.endswith(".")


def test_the_catalog_has_an_entry_for_every_kind_and_no_other():
    entries = read_catalog(write_catalog())
    assert set(entries) == {message_id(kind) for kind in KINDS}
    for kind in KINDS:
        headers, body = entries[message_id(kind)].split("\n\n", 1)
        names = [line.partition(": ")[0] for line in headers.splitlines()]
        assert names == ["Subject", "Defined-By", "Support", "Documentation"]
        text = EXPLANATIONS[kind]
        assert " ".join(body.split()) == f"{text.meaning} {text.advice}"


def test_systemd_reads_the_catalog_as_it_is_meant(tmp_path):
    program = shutil.which("journalctl")
    if program is None:
        return  # the test before this one goes by the format's rules
    directory = tmp_path / "usr/lib/systemd/catalog"
    directory.mkdir(parents=True)
    (directory / "factoryd.catalog").write_text(write_catalog())
    root = f"--root={tmp_path}"
    made = subprocess.run([program, root, "--update-catalog"], capture_output=True, check=True)
    assert made.stderr == b""
    dump = subprocess.run(
        [program, root, "--dump-catalog"], capture_output=True, check=True, text=True
    )
    assert read_catalog(dump.stdout) == read_catalog(write_catalog())


@pytest.mark.parametrize("fact", one_of_each(), ids=kind_of)
def test_a_text_names_only_fields_that_its_entry_has(fact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with contextlib.closing(PlayedJournal("journal")) as played:
        journal = Journal("journal")
        handler, facts = JournalHandler(journal), logging.getLogger(FACTS_LOGGER)
        level = facts.level
        facts.setLevel(logging.DEBUG)
        facts.addHandler(handler)
        try:
            log_fact(fact)
        finally:
            facts.removeHandler(handler)
            facts.setLevel(level)
            journal.close()
        fields = played.read()
    text = EXPLANATIONS[type(fact)]
    assert set(FIELD.findall(text.subject + text.meaning + text.advice)) <= set(fields)
    assert fields["FACTORY_FACT"] == kind_of(fact)


@pytest.mark.parametrize("kind", KINDS, ids=kind_of)
def test_every_command_that_is_advised_exists_and_stays_on_one_line(kind, tmp_path):
    text = EXPLANATIONS[kind]
    for command in COMMAND.findall(text.meaning + text.advice):
        assert f"`{command}`" in write_catalog()
        program, *words = shlex.split(command)
        if program == "factoryctl":
            arguments.parse(words)
        elif program == "factoryd":
            daemon.make_parser().parse_args(words)
        elif shutil.which(program):
            look = [program, f"--directory={tmp_path}", *words]
            subprocess.run(look, check=True, capture_output=True)
