"""Any document at all gives a configuration, which reads the same again, or its mistakes."""

import copy
from typing import Any

from hypothesis import given, settings, strategies as st

from factoryd.core.config_parse import parse_config, to_document
from factoryd.core.config_schema import describe
from factoryd.core.errors import ConfigInvalid
from tests.unit.configs import SMALL, parse

GARBAGE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["5s", "2G", "factory", "demo", "pair", "{issue.key}", "{", "\0", "(?i)(["])
    | st.datetimes()
    | st.dates()
    | st.times(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["name", "path", "env"]), inner, max_size=4)
    ),
    max_leaves=12,
)
NAMES = st.text() | st.sampled_from(
    [section.title.strip("[]").split(".")[0] for section in describe()]
)


def list_places(value, path=()):
    """Yield the path of every value inside a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        yield (*path, name)
        if isinstance(inner, dict | list):
            yield from list_places(inner, (*path, name))


def parse_or_refuse(document):
    mistakes: tuple[str, ...] = ()
    try:
        config = parse_config(document, "f.toml")
    except ConfigInvalid as error:
        mistakes = error.mistakes
    else:
        assert parse_config(to_document(config), "f.toml") == config
    assert all(line.startswith("f.toml: ") and line.isprintable() for line in mistakes)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(NAMES, GARBAGE, max_size=6))
def test_any_document_gives_a_configuration_or_its_mistakes(document):
    parse_or_refuse(document)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_sound_document_with_anything_put_into_it_gives_a_configuration_or_its_mistakes(data):
    document = copy.deepcopy(to_document(parse(SMALL)))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(list(list_places(document))))
        table: Any = document
        for step in path:
            table = table[step]
        table[last] = data.draw(GARBAGE)
    parse_or_refuse(document)
