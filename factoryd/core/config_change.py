"""What differs between two configurations, told by the keys of the file."""

from collections.abc import Iterator
from typing import cast

import msgspec

from factoryd.core.config import Config
from factoryd.core.config_check import quote

RESTART_KEYS = frozenset({"factory.containment"})
"""What a daemon decides once, when it starts."""


def list_changes(old: Config, new: Config) -> tuple[str, ...]:
    """Return the keys with another value, in the order of the reference.

    A named table counts as one (`agents.reviewer`), and so does a list (`routes`).
    """
    return tuple(key for section in Config.__struct_fields__ for key in _compare(old, new, section))


def list_restarts(started: Config, new: Config) -> tuple[str, ...]:
    """Return the keys whose new value only the next daemon goes by; `started`: the first one."""
    return tuple(key for key in list_changes(started, new) if key in RESTART_KEYS)


def _compare(old: Config, new: Config, section: str) -> Iterator[str]:
    before: object = getattr(old, section)
    after: object = getattr(new, section)
    if before == after:
        return
    if isinstance(before, msgspec.Struct):
        for key in before.__struct_fields__:
            if getattr(before, key) != getattr(after, key):
                yield f"{section}.{key}"
    elif isinstance(before, dict):
        tables = cast("dict[str, object]", before), cast("dict[str, object]", after)
        for name in dict.fromkeys((*tables[0], *tables[1])):
            if tables[0].get(name) != tables[1].get(name):
                yield f"{section}.{quote(name)}"
    else:
        yield section
