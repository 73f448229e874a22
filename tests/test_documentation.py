"""What the documentation says, tried: its commands are run, its tests exist, its tables are true."""

import os
import re
import runpy
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factoryctl import __main__ as ctl, errors as ctl_errors
from factoryctl.verbs import kill
from factoryd.adapters.cgroup import cgroup_of
from factoryd.core import errors
from factoryd.daemon import tree_root_name
from factoryd.wire.framing import ERROR_EXITS
from tests.conftest import empty
from tests.pages import (
    BOOTED_PAGE,
    PAGES,
    ROOT,
    Block,
    blocks,
    name,
    shows,
    systemd_commands,
)

LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
DONE = "--- the end of a block ---"
PATIENCE_S = 20.0


class Reader:
    """Someone who types a page's commands into a shell, in a home directory of their own."""

    def __init__(self, home: Path) -> None:
        programs = Path(sys.executable).parent
        assert (programs / "factoryd").exists(), "factoryd is not installed: run make test"
        kept = {one: text for one, text in os.environ.items() if one.startswith("COVERAGE")}
        self.home = home
        self.output = ""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-eu"],
            cwd=home,
            env={**kept, "HOME": str(home), "PATH": f"{programs}:/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, commands: str) -> str:
        """Run commands and return what they print; a command that fails ends the shell."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\necho '{DONE}'\n".encode())
        self._shell.stdin.flush()
        printed, deadline = b"", time.monotonic() + PATIENCE_S
        while DONE.encode() not in printed:
            ready, _, _ = select.select([self._shell.stdout], [], [], deadline - time.monotonic())
            assert ready, f"still busy after {PATIENCE_S} s: {commands}\n{printed.decode()}"
            more = os.read(self._shell.stdout.fileno(), 65536)
            assert more, f"a command failed: {commands}\n{printed.decode()}"
            printed += more
        return printed.decode().partition(DONE)[0]

    def leave(self) -> None:
        """End the daemon that the page may have left, and the shell."""
        for socket in self.home.rglob("control.sock"):
            ctl.main(["--socket", str(socket), "shutdown"])
        assert self._shell.stdout is not None
        self._shell.communicate()
        own = cgroup_of(os.getpid())
        for ledger in self.home.rglob("ledger.sqlite"):  # a page that failed may leave agents
            root = Path(own or "/", f"factoryd-{tree_root_name(ledger.parent)}")
            if root.exists():
                empty(root)


@pytest.fixture
def reader(tmp_path):
    one = Reader(tmp_path)
    yield one
    one.leave()


def try_block(reader: Reader, block: Block) -> None:
    """Run a block; one that only looks is run again, as its reader would, until it shows it.

    What it looks for may not be there yet: then its commands may fail, each of them.
    """
    commands, promised = block.commands, block.promised
    if block.only_looks and promised:
        commands = commands.replace("\n", " || :\n")
    until = time.monotonic() + PATIENCE_S
    printed = reader.type(commands)
    while not shows(printed, promised) and block.only_looks:
        assert time.monotonic() < until, f"{commands}\nshows\n{printed}\nnot\n{promised}"
        time.sleep(0.05)
        printed = reader.type(commands)
    assert shows(printed, promised), f"{commands}\nshows\n{printed}\nnot\n{promised}"


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_does_what_the_page_says(page, reader):
    for block in blocks(page, "sh"):
        targets = re.findall(r"^make ([\w-]+)", block.commands, re.MULTILINE)
        if targets:
            assert len(targets) == len(block.commands.splitlines())
            for target in targets:
                subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True)
        else:
            try_block(reader, block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_for_systemd_is_one_that_booted_machines_have_run(page):
    run = [
        set(command.split())
        for block in blocks(BOOTED_PAGE, "console")
        for command in systemd_commands(f"```sh\n{block.commands}```")
    ]
    for command in systemd_commands(page.read_text()):
        words = set(command.replace("@FACTORY_ISSUE@", "AR-255").split())
        words = {word.replace("@FACTORY_AGENT@", "ar-255-impl") for word in words}
        assert any(words <= each for each in run), command


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_test_that_a_page_names_exists(page):
    for file, test in TEST.findall(page.read_text()):
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), test


def test_every_promise_of_the_design_names_a_test():
    section = (ROOT / "docs/design.md").read_text().partition("\n## Promises")[2].split("\n## ")[0]
    promises = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]
    assert promises
    for promise in promises:
        assert TEST.search(promise), promise


@pytest.mark.parametrize("section", ["Nothing survives", "Defects"])
def test_every_row_of_the_design_names_a_test(section):
    text = (ROOT / "docs/design.md").read_text().partition(f"\n## {section}")[2].split("\n## ")[0]
    rows = re.findall(r"^\| (?!what |part |-).*\|$", text, re.MULTILINE)
    assert rows
    for row in rows:
        assert TEST.search(row), row


GENERATED = runpy.run_path(str(ROOT / "docs/generate.py"))["FILES"]


@pytest.mark.parametrize("file", GENERATED)
def test_a_generated_file_says_what_the_code_says(file):
    assert (ROOT / file).read_text() == GENERATED[file](), f"run docs/generate.py {file}"


def statuses(program: str) -> set[int]:
    """Return the statuses of a program's table in the reference."""
    page = (ROOT / "docs/reference/exit-statuses.md").read_text()
    section = page.partition(f"\n## {program}\n")[2].split("\n## ")[0]
    return {int(found) for found in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}


def test_every_exit_status_of_factoryctl_is_in_the_reference():
    ends = [one for one in vars(ctl_errors).values() if isinstance(one, type)]
    failures = {one.exit_status for one in ends if issubclass(one, ctl_errors.Failure)}
    others = {0, kill.SURVIVORS, ctl.INTERRUPTED, ctl.CUT_OFF}
    assert statuses("factoryctl") == failures | set(ERROR_EXITS.values()) | others


def test_every_exit_status_that_stops_factoryd_from_starting_is_in_the_reference():
    starting = (errors.ConfigInvalid, errors.BadUsage, errors.AlreadyRunning)
    ends = {one.exit_status for one in (*starting, errors.LedgerUnavailable)}
    assert ends | {errors.KEEP_AGENTS_STATUS} <= statuses("factoryd")
