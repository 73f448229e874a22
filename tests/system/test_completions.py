"""Completions in the shells themselves, installed as a user installs them, with a live daemon."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from factoryctl.arguments import make_parser as make_ctl_parser
from factoryd.__main__ import make_parser
from factoryd.installing import Target, install_units
from tests.programs import find_program
from tests.shells import Typist, a_shell
from tests.system.daemons import WITHIN_S, a_daemon, play

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")
START = {
    "bash": (["--norc", "-i"], f"PS1=; . {BASH_COMPLETION}"),
    "zsh": (
        ["-f", "-i"],
        "PS1=; fpath+=(~/.local/share/zsh/site-functions); autoload -U compinit; compinit -D -u",
    ),
}
"""How a shell is started, and what those who use it have in its start file."""

SHELLS = [*START, "fish"]


class Fish:
    """A fish that is asked what it would offer: it draws too much to be read on a terminal."""

    def __init__(self, environ, home):
        self._environ = {**environ, "HOME": str(home)}
        self._home = home

    def complete(self, line):
        """Return what a line is once its only completion was chosen; as it was if it has none."""
        done = subprocess.run(
            [find_program("fish"), "-c", 'complete -C "$argv[1]"', line],
            env=self._environ,
            cwd=self._home,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        before, space, typed = line.rpartition(" ")
        offered = [one.partition("\t")[0] for one in done.stdout.splitlines()]
        exact = [one for one in offered if one.startswith(typed)]  # it offers other cases, too
        return before + space + exact[0] if len(exact) == 1 else line


@contextmanager
def a_typist(shell: str, home: Path) -> Iterator[Typist | Fish]:
    """Start a shell that has found the completions by itself."""
    environ = {"PATH": f"{PROGRAMS}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    install_units(Target(user=True), {"HOME": str(home)}, None)
    if shell == "fish":
        find_program("fish")
        yield Fish(environ, home)
        return
    if shell == "bash" and not BASH_COMPLETION.exists():
        find_program("bash_completion", "bash-completion")
    arguments, first = START[shell]
    with a_shell([find_program(shell), *arguments], environ, home) as typist:
        typist.type(f"{first}; echo rea''dy\r")
        typist.wait(r"^ready\r$")
        yield typist


def completed(typist, line):
    return typist.complete(line).rstrip()


def completed_in_the_end(typist, line):
    """Type a line that is to be completed until it is: after 2 s of waiting nothing is offered."""
    until = time.monotonic() + WITHIN_S
    while (shown := completed(typist, line)) == line and time.monotonic() < until:
        pass
    return shown


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("shell", SHELLS)
def test_verbs_options_and_files_are_completed_without_a_daemon(shell, tmp_path):
    (tmp_path / "hello.md").touch()
    (tmp_path / "there").mkdir()
    with a_typist(shell, tmp_path) as typist:
        for line, wanted in {
            "factoryctl sub": "factoryctl submit",
            "factoryctl --socket there/x expl": "factoryctl --socket there/x explain",
            "factoryctl --socket=there/x expl": "factoryctl --socket=there/x explain",
            "factoryctl kill --gr": "factoryctl kill --grace",
            "factoryctl kill --reason freeze --no-w": "factoryctl kill --reason freeze --no-wait",
            "factoryctl loop-status --js": "factoryctl loop-status --json",
            "factoryctl submit hel": "factoryctl submit hello.md",
            "factoryctl submit hello.md th": "factoryctl submit hello.md there/",
            "factoryctl --state-dir th": "factoryctl --state-dir there/",
            "factoryctl kill AR-": "factoryctl kill AR-",
            "factoryctl pause hel": "factoryctl pause hel",
            "factoryd check": "factoryd check-config",
            "factoryd --config hel": "factoryd --config hello.md",
            "factoryd reap --aft": "factoryd reap --after-stop",
        }.items():
            assert completed(typist, line).rstrip("/") == wanted.rstrip("/")


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("shell", SHELLS)
async def test_issues_and_agents_at_work_are_completed(shell, tmp_path):
    async with a_daemon() as daemon:
        for key in ("AR-255", "BR-7"):
            daemon.place.put(key, play(), title="""'"key":"CR-1",{"name":"cr-1-w",'""")
            await daemon.wait_running(key)
        socket = daemon.place.socket

        def look() -> None:
            with a_typist(shell, tmp_path) as typist:
                for line, wanted in {
                    "kill AR-": "kill AR-255",
                    "kill ar-": "kill ar-255-w",
                    "kill AR-255 BR": "kill AR-255 BR-7",
                    "--json logs br": "--json logs br-7-w",
                    "freeze --reason no A": "freeze --reason no AR-255",
                    "events --issue B": "events --issue BR-7",
                    "explain AR-255 B": "explain AR-255 B",
                    "freeze ar": "freeze ar",
                    "kill CR": "kill CR",
                    "kill cr": "kill cr",
                    "kill iss": "kill iss",  # the name of the source
                }.items():
                    for place in (f"--socket {socket}", f"--runtime-dir={daemon.place.runtime}"):
                        typed, shows = f"factoryctl {place} {line}", f"factoryctl {place} {wanted}"
                        complete = completed if shows == typed else completed_in_the_end
                        assert complete(typist, typed) == shows

        await trio.to_thread.run_sync(look)


@pytest.mark.parametrize(
    ("shell", "check"), [("bash", ["-n"]), ("zsh", ["-f", "-n"]), ("fish", ["--no-execute"])]
)
def test_a_shell_finds_no_fault_in_its_files(shell, check):
    files = sorted((ROOT / "docs/shells" / shell).iterdir())
    assert len(files) == 2
    for file in files:
        command = [find_program(shell), *check, file]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("make", [make_ctl_parser, make_parser])
@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_and_option_is_in_the_file_of_a_shell(shell, make):
    parser = make()
    (file,) = (ROOT / "docs/shells" / shell).glob(f"*{parser.prog}*")
    text = file.read_text()
    for name, verb in parser._subparsers._group_actions[0].choices.items():
        assert name in text
        for option in (one for action in verb._actions for one in action.option_strings):
            fish = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            assert (fish if shell == "fish" else option) in text
