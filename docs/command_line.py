"""What a parser of command lines takes, as data: argparse has no public way to ask."""

from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb of a program: its other names, what it does, and its parser."""

    name: str
    aliases: tuple[str, ...]
    summary: str
    parser: ArgumentParser


def list_arguments(parser: ArgumentParser) -> list[Action]:
    """Return options and positional arguments, in the order of their definition, without verbs."""
    every: Sequence[Action] = parser._actions  # noqa: SLF001  not public
    return [one for one in every if one.help != SUPPRESS and not isinstance(one, _SubParsersAction)]


def list_verbs(parser: ArgumentParser) -> list[Verb]:
    """Return the verbs, in the order of their definition."""
    for action in parser._actions:  # noqa: SLF001  not public
        if isinstance(action, _SubParsersAction):
            parsers: dict[str, ArgumentParser] = action.choices
            return [
                Verb(
                    name=one.dest,
                    aliases=tuple(
                        name
                        for name, of in parsers.items()
                        if of is parsers[one.dest] and name != one.dest
                    ),
                    summary=one.help or "",
                    parser=parsers[one.dest],
                )
                for one in action._choices_actions  # noqa: SLF001  not public
            ]
    return []


def list_shared(parser: ArgumentParser) -> list[Action]:
    """Return the options that a program takes before a verb and after each, meaning the same."""
    verbs = [list_arguments(verb.parser) for verb in list_verbs(parser)]
    return [
        one
        for one in list_arguments(parser)
        if all(is_among(one, arguments) for arguments in verbs)
    ]


def is_among(one: Action, others: list[Action]) -> bool:
    """Say whether an option is among others, with nothing said of it that these do not say."""
    return any(
        other.option_strings == one.option_strings and (not one.help or other.help == one.help)
        for other in others
        if one.option_strings
    )


def explain(parser: ArgumentParser, one: Action) -> str:
    """Return what `--help` says of an argument."""
    return parser._get_formatter()._expand_help(one) if one.help else ""  # noqa: SLF001  not public


def rivals(parser: ArgumentParser, one: Action) -> list[Action]:
    """Return the options of which only one may be given, this one among them; else it alone."""
    for group in parser._mutually_exclusive_groups:  # noqa: SLF001  not public
        if one in group._group_actions:  # noqa: SLF001  not public
            return list(group._group_actions)  # noqa: SLF001  not public
    return [one]
