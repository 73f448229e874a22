"""Placeholders in an agent's command, and what they become."""

import re
from collections.abc import Mapping, Sequence

PLACEHOLDERS: dict[str, str] = {
    "issue.key": "the issue's key, `AR-255`",
    "issue.title": "the issue's title, as its author wrote it",
    "issue_file": "absolute path of a file that holds the issue's text",
    "workspace": "absolute path of the directory the agent works in",
    "round": "1 for the first round, more after a reviewer asked for changes",
    "attempt": "1 for the first attempt",
    "session": "the session to resume, empty for a new one",
    "run": "the id of this run",
}
"""Every placeholder, and its meaning."""

_TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")


def find_mistake(argument: str) -> str | None:
    """Return what is wrong with one argument of a command, None when nothing is."""
    for token in _TOKEN.findall(argument):
        if token in ("{{", "}}"):
            continue
        if token in ("{", "}"):
            return f"a lone {token}: write {token * 2} where a brace is meant"
        if token[1:-1] not in PLACEHOLDERS:
            known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            return (
                f"unknown placeholder {_shorten(token)}: there are {known}; "
                "write {{ and }} where braces are meant"
            )
    return None


def find_placeholders(argument: str) -> frozenset[str]:
    """Return the names of the placeholders in one argument."""
    return frozenset(token[1:-1] for token in _TOKEN.findall(argument) if len(token) > 2)


def escape(text: str) -> str:
    """Return the argument that `expand` turns into `text` itself."""
    return text.replace("{", "{{").replace("}", "}}")


def find_literal(argument: str) -> str | None:
    """Return what an argument without placeholders expands to; None for any other argument."""
    if find_mistake(argument) or find_placeholders(argument):
        return None
    return expand((argument,), {})[0]


def expand(command: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command with each placeholder replaced by its value from `values`.

    Each argument is expanded alone and once: whatever a value holds (spaces, quotes, braces), it
    stays inside its argument and is not looked at again. A NUL, which no argument can hold, is
    left out. Raise `KeyError` when `values` lacks a placeholder that the command uses.
    """

    def replace(match: re.Match[str]) -> str:
        token = match[0]
        if len(token) <= 2:
            return token[0]
        return values[token[1:-1]].replace("\0", "")

    return tuple(_TOKEN.sub(replace, argument) for argument in command)


def _shorten(token: str) -> str:
    return token if len(token) <= 40 and token.isprintable() else "{…}"
