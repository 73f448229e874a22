"""Keywords of routes: regular expressions that cannot take long, whatever they are looked for in.

Python's engine tries one way through a pattern after the other, and some patterns have more ways
than there is time. So the ways are counted when the configuration is loaded. A pattern with few of
them may read a whole issue, one with more only its beginning, and one with too many is refused.
"""

import re
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import import_module
from typing import cast

REACHES = (100_000, 2_000)
"""How many characters of title and body a pattern reads: the first of these that it can afford."""

MAX_STEPS = 100_000_000
"""What a search may cost at worst, in steps of the engine; about a second."""

Item = tuple[object, object]


class BadKeyword(Exception):
    """A pattern that is no regular expression, or may take too long; the text says what to do."""


class _Cost:
    """What trying a part of a pattern takes from one place on: its ways to match, and all steps."""

    def __init__(self, ways: float, steps: float) -> None:
        self.ways = ways
        self.steps = steps


@cache
def measure_reach(pattern: str) -> int:
    """Return how many characters a pattern may read; raise `BadKeyword` when it may not be used."""
    items = _parse(pattern)
    for reach in REACHES:
        if reach * _measure(_trim(items), reach).steps <= MAX_STEPS:
            return reach
    raise BadKeyword(
        "may take too long: it repeats what repeats, or too much in a row; say how often at most, "
        "as .{0,40} in place of .*"
    )


def is_in(pattern: str, text: str) -> bool:
    """Say whether a pattern that was accepted is found in the part of a text that it may read."""
    return _search(pattern, text[: measure_reach(pattern)])


@lru_cache(maxsize=1024)
def _search(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def _parse(pattern: str) -> Sequence[Item]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
            return cast("Sequence[Item]", import_module("re._parser").parse(pattern))
    except re.error as error:
        raise BadKeyword(f"is no regular expression: {error}") from error
    except (OverflowError, RecursionError) as error:
        raise BadKeyword("is too large a regular expression: write a simpler one") from error


def _trim(items: Sequence[Item]) -> Sequence[Item]:
    """Return a pattern without a repeat at its end, which has matched once it is reached."""
    if items and str(items[-1][0]) in {"MAX_REPEAT", "MIN_REPEAT"}:
        least, _, repeated = cast("tuple[int, int, Sequence[Item]]", items[-1][1])
        return [*items[:-1], (items[-1][0], (least, least, repeated))]
    return items


def _measure(items: Sequence[Item], reach: int) -> _Cost:
    """Return what a sequence costs: each way through a part tries all that follows it."""
    cost = _Cost(1, 1)
    for item in reversed(items):
        part = _measure_one(item, reach)
        cost = _Cost(part.ways * cost.ways, part.steps + part.ways * cost.steps)
    return cost


def _measure_one(item: Item, reach: int) -> _Cost:
    name, argument = str(item[0]), item[1]
    match name:
        case "LITERAL" | "NOT_LITERAL" | "ANY" | "AT":
            return _Cost(1, 1)
        case "IN":
            return _Cost(1, len(cast("Sequence[object]", argument)))
        case "SUBPATTERN":
            return _measure(
                cast("tuple[object, object, object, Sequence[Item]]", argument)[3], reach
            )
        case "BRANCH":
            branches = cast("tuple[object, Sequence[Sequence[Item]]]", argument)[1]
            costs = [_measure(branch, reach) for branch in branches]
            return _Cost(sum(one.ways for one in costs), sum(one.steps for one in costs))
        case "MAX_REPEAT" | "MIN_REPEAT":
            least, most, repeated = cast("tuple[int, int, Sequence[Item]]", argument)
            return _repeat(_measure(repeated, reach), least, min(most, reach))
        case _:
            raise BadKeyword(
                "looks around, refers back or repeats possessively, which may take too long: "
                "write a simpler one"
            )


def _repeat(one: _Cost, least: int, most: int) -> _Cost:
    if one.ways == 1:
        return _Cost(max(1, most - least + 1), max(least, most, 1) * one.steps)
    if most > 64:
        return _Cost(float("inf"), float("inf"))
    ways = sum(one.ways**n for n in range(least, most + 1))
    return _Cost(ways, one.steps * sum(one.ways**n for n in range(most)))
