"""The manual pages: what the parsers and the configuration's types say, and what these cannot say."""

import re
from argparse import Action, ArgumentParser
from datetime import UTC, datetime
from pathlib import Path

from docs.command_line import (
    Verb,
    explain,
    is_among,
    list_arguments,
    list_shared,
    list_verbs,
    rivals,
)
from docs.roff import prose, render, title
from factoryctl.arguments import make_parser as make_ctl_parser
from factoryd import __version__
from factoryd.__main__ import make_parser
from factoryd.core.config_schema import Key, describe
from factoryd.core.template import PLACEHOLDERS

ROOT = Path(__file__).parent.parent
STATUSES = ROOT / "docs/reference/exit-statuses.md"
NBSP = "\u00a0"
ORIGIN = '.\\" Written by docs/generate.py; change docs/manual.py, or what it reads, instead.\n'

DAEMON = """\
`factoryd` works through issues with coding agents, unattended. It takes issues from its sources, runs
the agents of each as supervised process trees in a workspace of its own, and proves that every tree is
empty before it calls an issue done: whatever an agent forks, daemonises or leaves running ends with its
issue. `factoryctl`(1) shows what happens and steers it.

It stays in the foreground, for a service manager to keep it running, and tells `systemd`(1) when it is
ready, what it is doing and that it makes progress. Every step is a fact in its ledger, committed before
it is acted on. A daemon that is killed costs no agent: they go on, and the next one takes them over.

There is one daemon to a state directory. Started without a verb it does what `run` does.
"""

COMMAND = """\
`factoryctl` shows what a `factoryd`(8) does and steers it, over its control socket. `history`, `events`,
`doctor` and `reap-orphans` work without a daemon, too; `factoryd` answers them then.

A *TARGET* is the key of an issue, such as AR-255, or the name of an agent, such as ar-255-impl. The answer
is on standard output and nothing else is. Colour and tables are for terminals only.
"""

ANYWHERE = "These may stand before the verb or after it."

SIGNALS = {
    "SIGTERM, SIGINT": (
        "Stop: dispatch nothing new, end all agents, prove that nothing is left of them. They have the "
        "`grace` of the configuration to end by themselves; asked a second time, they have no more."
    ),
    "SIGHUP": (
        "Read the configuration anew, as `factoryctl reload` has it done. One with mistakes changes "
        "nothing."
    ),
}

CONFIGURATION = {
    "CONFIGURATION_DIRECTORY": "where `factoryd.toml` is, unless --config says so; systemd sets it",
    "XDG_CONFIG_HOME": "what the configuration of a user's own daemon is in (`~/.config`)",
}

PLACES = {
    "STATE_DIRECTORY": "the state directory, unless --state-dir says so; systemd sets it",
    "RUNTIME_DIRECTORY": "the runtime directory, unless --runtime-dir says so; systemd sets it",
    "XDG_STATE_HOME": "what the state of a user's own daemon is in (`~/.local/state`)",
    "XDG_RUNTIME_DIR": (
        "what the runtime directory of a user's own daemon is in (else it is `run` in its state directory)"
    ),
    "HOME": "where these are when they are not set",
}
"""The variables that say where a daemon's directories are."""

DAEMON_ENVIRONMENT = (
    CONFIGURATION
    | PLACES
    | {
        "XDG_DATA_HOME": "where `install-units --user` puts files (`~/.local/share`)",
        "PATH": "where `git` is looked for",
        "NOTIFY_SOCKET": "how to tell the service manager; without it nobody is told",
        "WATCHDOG_USEC": "how often the service manager wants to hear of progress",
        "WATCHDOG_PID": "whom it wants to hear it from",
        "LISTEN_FDS": "how many sockets the service manager holds; one is the control socket",
        "LISTEN_PID": "whom it holds them for",
        "LISTEN_FDNAMES": "what they are called",
        "JOURNAL_STREAM": "whether standard error is the journal, which then gets more than text",
        "SERVICE_RESULT": "how the service ended, for `reap --after-stop`",
        "EXIT_CODE": "how its main process ended, for the same",
        "EXIT_STATUS": "the status or the signal it ended with, for the same",
        "FACTORYD_FAULT": "for tests: the daemon breaks at the moment named",
    }
)

COMMAND_ENVIRONMENT = {
    "FACTORYD_SOCKET": "the control socket, unless --socket says so",
    **PLACES,
    "NO_COLOR": "not empty: no colours",
}

AGENT_ENVIRONMENT = {
    "FACTORY_ISSUE": "the key of the issue",
    "FACTORY_ISSUE_FILE": "a file with the issue's text",
    "FACTORY_TITLE": "the title of the issue",
    "FACTORY_AGENT": "the agent's own name",
    "FACTORY_ROLE": "the *NAME* in `[agents.NAME]`",
    "FACTORY_ATTEMPT": "the number of the attempt, from 1",
    "FACTORY_ROUND": "the number of the round, from 1",
    "FACTORY_RUN": "the run's id",
    "FACTORY_SESSION": "the session to go on with, or empty",
    "FACTORY_WORKSPACE": "the directory it works in",
    "FACTORY_SOCKET": "the daemon's control socket, of which an agent may ask",
    "FACTORY_FEEDBACK_FILE": "a file with the last lines of the agent that asked for changes, where one did",
}
"""The variables that an agent is given, besides those that the configuration names."""

FILES = {
    "/etc/factoryd/factoryd.toml": "the configuration of the machine's daemon, `factoryd.toml`(5)",
    "/var/lib/factoryd": "its state directory, with what outlives it; for itself alone",
    "/var/lib/factoryd/ledger.sqlite": "the ledger: every fact",
    "/var/lib/factoryd/runs": "what each run printed",
    "/var/lib/factoryd/workspaces": "the workspaces of issues that are at work",
    "/run/factoryd": "its runtime directory",
    "/run/factoryd/control.sock": "the control socket",
    "/run/factoryd/heartbeat": "when it last made progress",
    "~/.config/factoryd/factoryd.toml": "the configuration of a user's own daemon",
    "~/.local/state/factoryd": "its state directory",
    "$XDG_RUNTIME_DIR/factoryd": "its runtime directory",
    "$XDG_RUNTIME_DIR/factoryd/control.sock": "its control socket",
}

SOCKETS = ("/run/factoryd/control.sock", "$XDG_RUNTIME_DIR/factoryd/control.sock")
"""Those of the files that `factoryctl` looks for."""

DAEMON_EXAMPLES = {
    "See whether the configuration is sound:": "factoryd check-config --config factoryd.toml",
    "See what would be dispatched, and why the rest would not:": "factoryd --dry-run",
    "Work through what is there, then end:": "factoryd --config factoryd.toml --once",
    "End what a dead daemon has left running; say first what that would be:": (
        "factoryd reap --dry-run\nfactoryd reap"
    ),
}

COMMAND_EXAMPLES = {
    "Put an issue into the factory and look on:": (
        "factoryctl submit hello.md\nfactoryctl status --watch"
    ),
    "Read along with what an agent prints:": "factoryctl logs --follow ar-255-impl",
    "Find out why an issue is not worked on:": "factoryctl explain AR-255",
    "End an issue with all its agents at once:": (
        "factoryctl kill --now --reason 'wrong branch' AR-255"
    ),
    "List the keys of all issues, in a script:": (
        "factoryctl --json status | jq --raw-output '.issues[].key'"
    ),
}

CAVEATS = """\
Agents run as the daemon's own user, with all that this user may do. Nothing confines them.
"""


def write_daemon_page() -> str:
    """Return docs/man/factoryd.8."""
    return _write_page(
        ("factoryd", 8, "System Administration"),
        "supervise coding agents, each issue's process trees to their end",
        _write_program(make_parser(), DAEMON)
        + f"# SIGNALS\n\n{_write_table(SIGNALS)}"
        + f"# EXIT STATUS\n\n{_write_statuses('factoryd')}"
        + f"## Agents\n\n{_read_statuses()['Agents']}"
        + f"# ENVIRONMENT\n\n{_write_table(DAEMON_ENVIRONMENT)}"
        + f"# FILES\n\n{_write_table(FILES)}"
        + f"# EXAMPLES\n\n{_write_examples(DAEMON_EXAMPLES)}"
        + f"# CAVEATS\n\n{CAVEATS}\n"
        + "# SEE ALSO\n\n`factoryctl`(1), `factoryd.toml`(5), `journalctl`(1), `systemctl`(1), "
        "`cgroups`(7)\n",
    )


def write_command_page() -> str:
    """Return docs/man/factoryctl.1."""
    return _write_page(
        ("factoryctl", 1, "User Commands"),
        "watch and steer factoryd",
        _write_program(make_ctl_parser(), COMMAND)
        + f"# EXIT STATUS\n\n{_write_statuses('factoryctl')}"
        + f"# ENVIRONMENT\n\n{_write_table(COMMAND_ENVIRONMENT)}"
        + f"# FILES\n\n{_write_table({path: FILES[path] for path in SOCKETS})}"
        + f"# EXAMPLES\n\n{_write_examples(COMMAND_EXAMPLES)}"
        + "# SEE ALSO\n\n`factoryd`(8), `factoryd.toml`(5), `journalctl`(1), `varlinkctl`(1)\n",
    )


def write_config_page(intro: str, command: str) -> str:
    """Return docs/man/factoryd.toml.5; `intro` and `command` are texts of the reference page."""
    opening, _, example = re.sub(r"\A# .*\n|<!--.*-->\n", "", intro).partition("## The smallest")
    sections = "".join(
        f"## {section.title}\n\n{_sentence(section.meaning)}\n\n"
        + _write_table({f"`{key.name}`": _describe_key(key) for key in section.keys})
        for section in describe()
    )
    placeholders = _write_table({f"`{{{name}}}`": text for name, text in PLACEHOLDERS.items()})
    paths = {path: text for path, text in FILES.items() if path.endswith(".toml")}
    return _write_page(
        ("factoryd.toml", 5, "File Formats"),
        "what factoryd works on, and how",
        f"# DESCRIPTION\n\n{opening}\n\n# SECTIONS\n\n{sections}"
        f"# PLACEHOLDERS\n\n{command.partition('###')[2].partition(chr(10))[2]}\n\n{placeholders}"
        "# ENVIRONMENT\n\nAn agent gets the variables of `pass_env` that the daemon has, those of "
        f"`env`, and these:\n\n{_write_table(AGENT_ENVIRONMENT)}"
        f"# FILES\n\n{_write_table(paths)}"
        f"# EXAMPLES\n\nThe smallest {example}\n\n"
        "# SEE ALSO\n\n`factoryd`(8), `factoryctl`(1)\n",
    )


def _write_page(name: tuple[str, int, str], purpose: str, body: str) -> str:
    """Return a page; its date is that of its last change."""
    page, section, manual = name
    path = ROOT / f"docs/man/{page}.{section}"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    known = re.search(r"^\.TH \S+ \d (\S+)", before, re.MULTILINE)

    def dated(date: str) -> str:
        head = title(page, section, date, f"factoryd {__version__}", manual)
        named = f".SH NAME\n{page} \\- {prose(purpose)}\n"
        return f"{ORIGIN}{head}{named}{render(body)}"

    if known and dated(known[1]) == before:
        return before
    return dated(datetime.now(UTC).date().isoformat())


def _write_program(parser: ArgumentParser, description: str) -> str:
    verbs = list_verbs(parser)
    general = list_arguments(parser)
    shared = [one for one in list_shared(parser) if one.dest != "help"]
    own = [one for one in general if one not in shared and one.dest not in {"help", "version"}]
    usage = f"`{parser.prog}` {_write_usage(parser, own)}\n\n" if own else ""
    option = f"[*option*{NBSP}...] " if shared else ""
    anywhere = f"{ANYWHERE}\n\n" if shared else ""
    return (
        f"# SYNOPSIS\n\n{usage}`{parser.prog}` {option}*verb* ...\n\n"
        f"# DESCRIPTION\n\n{description}\n\n"
        f"# OPTIONS\n\n{anywhere}{_write_arguments(parser, general)}"
        "# VERBS\n\n" + "".join(_write_verb(parser, verb, general, shared) for verb in verbs)
    )


def _write_verb(
    parser: ArgumentParser, verb: Verb, general: list[Action], shared: list[Action]
) -> str:
    """Return a verb's part; what the options mean that the program itself has is not repeated."""
    every = [one for one in list_arguments(verb.parser) if one.dest != "help"]
    wanted = [one for one in every if not is_among(one, shared)]
    news = [one for one in wanted if not is_among(one, general)]
    others = " and ".join(f"`{name}`" for name in verb.aliases)
    also = f" Its other name is {others}." if others else ""
    return (
        f"## {verb.name}\n\n"
        f"`{parser.prog} {verb.name}` {_write_usage(verb.parser, wanted)}\n\n"
        f"{_sentence(verb.summary)}{also}\n\n{_write_arguments(verb.parser, news)}"
    )


def _write_usage(parser: ArgumentParser, arguments: list[Action]) -> str:
    parts: list[str] = []
    written: list[Action] = []
    for one in sorted(arguments, key=lambda each: not each.option_strings):
        if one in written:
            continue
        group = [each for each in rivals(parser, one) if each in arguments]
        written += group
        choice = f"{NBSP}|{NBSP}".join(_spell(each, each.option_strings[:1]) for each in group)
        more = f"{NBSP}..." if one.nargs in {"*", "+"} else ""
        parts.append(f"{choice}{more}" if one.required else f"[{choice}{more}]")
    return " ".join(parts)


def _spell(one: Action, names: list[str]) -> str:
    """Return how an argument is written, all its `names` before one value each."""
    value = f"*{one.metavar or one.dest.upper()}*"
    tail = "" if one.nargs == 0 else f"{NBSP}{value}"
    return ", ".join(f"`{name}`{tail}" for name in names) or value


def _write_arguments(parser: ArgumentParser, arguments: list[Action]) -> str:
    return _write_table(
        {
            _spell(one, list(one.option_strings)): explain(parser, one) or "as above"
            for one in arguments
        }
    )


def _write_statuses(program: str) -> str:
    """Return what the reference page has on a program and its verbs."""
    texts = _read_statuses()
    more = (
        f"## {name}\n\n{text}"
        for name, text in texts.items()
        if name != program and name.startswith(f"{program} ")
    )
    return texts[program] + "".join(more)


def _read_statuses() -> dict[str, str]:
    _, *sections = re.split(r"^## ", STATUSES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    parts = (section.partition("\n") for section in sections)
    return {name: f"{text.strip()}\n\n" for name, _, text in parts}


def _write_examples(examples: dict[str, str]) -> str:
    return "".join(f"{what}\n\n```sh\n{how}\n```\n\n" for what, how in examples.items())


def _write_table(rows: dict[str, str]) -> str:
    """Return rows of a term and its meaning, each term that is not marked up as it is typed."""
    if not rows:
        return ""
    marked = {
        term if re.match(r"[`*\[]", term) else f"`{term}`": text.replace("|", "\\|")
        for term, text in rows.items()
    }
    lines = "".join(f"| {term} | {text} |\n" for term, text in marked.items())
    return f"| | |\n|---|---|\n{lines}\n"


def _describe_key(key: Key) -> str:
    default = "required" if key.required else f"default `{key.default}`" if key.default else "unset"
    return f"{_sentence(key.type)[:-1]}; {default}. {key.meaning}"


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"


PAGES = {
    "docs/man/factoryd.8": write_daemon_page,
    "docs/man/factoryctl.1": write_command_page,
}
