"""The manual pages: sound for any reader of them, and with nothing left out."""

import ast
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from factoryctl.arguments import make_parser as make_ctl_parser
from factoryd.__main__ import make_parser
from factoryd.core.assignment import factory_variables
from factoryd.core.config_schema import describe
from factoryd.core.installation import fill_in, for_machine
from factoryd.core.model import RunId
from tests.programs import find_program
from tests.unit.test_command_kind import work

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("docs/man/*"))
MANUAL = runpy.run_path(str(ROOT / "docs/manual.py"))
ROFF = runpy.run_path(str(ROOT / "docs/roff.py"))
PROGRAMS = [
    ("factoryd.8", make_parser, "DAEMON"),
    ("factoryctl.1", make_ctl_parser, "COMMAND"),
]


def rendered(page):
    """Return a page's text as a reader sees it, on one line."""
    done = subprocess.run(
        [find_program("mandoc"), "-Tutf8", ROOT / "docs/man" / page],
        capture_output=True,
        text=True,
        check=True,
    )
    return " ".join(re.sub(".\b", "", done.stdout).split())


def variables_read(*packages):
    """Return the environment variables that the code of packages asks for by name."""
    found = set()
    for module in (path for one in packages for path in ROOT.glob(f"{one}/**/*.py")):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call) and "environ" in ast.unparse(node):
                texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
                found |= {one for one in texts if re.fullmatch(r"[A-Z]+(_[A-Z]+)*", str(one))}
    return found


def test_there_is_a_page_for_each_program_and_for_the_configuration():
    assert [page.name for page in PAGES] == ["factoryctl.1", "factoryd.8", "factoryd.toml.5"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_nothing_that_mandoc_would_warn_of(page):
    done = subprocess.run(
        [find_program("mandoc"), "-Tlint", "-Wall", page],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_installed_page_is_as_sound(page, tmp_path):
    (shipped,) = (one for one in for_machine().files if one.name.endswith(f"/{page.name}"))
    assert shipped.to == f"share/man/man{page.suffix[1:]}/{page.name}"
    installed = tmp_path / page.name
    installed.write_text(fill_in(page.read_text(), shipped, "/opt/factoryd/bin", None))
    test_a_page_has_nothing_that_mandoc_would_warn_of(installed)


@pytest.mark.parametrize(("page", "make", "of"), PROGRAMS)
def test_a_page_has_every_verb_with_its_options(page, make, of):
    text = rendered(page)
    for verb in make()._subparsers._group_actions[0].choices.values():
        for action in verb._actions:
            for name in action.option_strings:
                assert re.search(rf"(?<!\S){re.escape(name)}(?=[\s,\]])", text), (verb.prog, name)


@pytest.mark.parametrize(("page", "make", "of"), PROGRAMS)
def test_every_example_of_a_page_is_a_command_line_that_is_taken(page, make, of):
    text, taken = rendered(page), 0
    for example in MANUAL[f"{of}_EXAMPLES"].values():
        for line in example.splitlines():
            assert " ".join(line.split()) in text
            program, *arguments = shlex.split(line.partition(" | ")[0])
            assert page.startswith(program)
            make().parse_args(arguments)
            taken += 1
    assert taken >= 4


def test_the_page_of_the_daemon_names_every_variable_that_is_read():
    read = variables_read("factoryd") | {"FACTORYD_FAULT"}
    assert set(MANUAL["DAEMON_ENVIRONMENT"]) == read


def test_the_page_of_the_command_names_every_variable_that_is_read():
    assert set(MANUAL["COMMAND_ENVIRONMENT"]) == variables_read("factoryctl") | {"NO_COLOR"}


def test_the_page_of_the_configuration_has_every_key_and_what_agents_are_given():
    text = rendered("factoryd.toml.5")
    for section in describe():
        assert section.title in text
        for key in section.keys:
            assert f" {key.name} {key.type[:1].upper()}{' '.join(key.type.split())[1:]};" in text
    given = factory_variables(work(feedback="/s/feedback"), RunId("ar-1-impl-0c"), None)
    assert set(MANUAL["AGENT_ENVIRONMENT"]) == set(given)


def test_a_page_keeps_its_date_until_something_else_changes(tmp_path, monkeypatch):
    write = MANUAL["_write_page"]
    monkeypatch.setitem(write.__globals__, "ROOT", tmp_path)
    (tmp_path / "docs/man").mkdir(parents=True)
    path = tmp_path / "docs/man/it.1"
    path.write_text(write(("it", 1, "Commands"), "do it", "# A\n\ntext\n"))
    path.write_text(re.sub(r"\d{4}-\d\d-\d\d", "2001-02-03", path.read_text()))
    assert "2001-02-03" in write(("it", 1, "Commands"), "do it", "# A\n\ntext\n")
    assert "2001-02-03" not in write(("it", 1, "Commands"), "do it", "# A\n\nchanged\n")


def test_text_is_never_taken_for_a_macro():
    source = ROFF["render"]("# A\n\n.TH is `text`\n\n'tis\n\n```sh\n.SH B\n\\d\n```\n")
    assert source.splitlines() == [
        ".SH A",
        r"\&.TH is \fBtext\fR",
        ".PP",
        r"\&'tis",
        ".PP",
        ".RS 4",
        ".nf",
        r"\&.SH B",
        r"\ed",
        ".fi",
        ".RE",
    ]


def test_what_is_typed_can_be_copied_from_a_page():
    assert ROFF["prose"]("say `--a '~'`, *N* or [that](x.md)") == (
        r"say \fB\-\-a \(aq\(ti\(aq\fR, \fIN\fR or that"
    )


def test_each_sentence_begins_a_line_and_none_is_long():
    lines = ROFF["fill"](f"One. {'word ' * 40}end. Two?")
    assert lines[0] == "One."
    assert lines[-1] == "Two?"
    assert max(map(len, lines)) <= 78
