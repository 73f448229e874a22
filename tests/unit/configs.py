"""A small sound configuration, and ways to spoil it."""

import re
import tomllib
from typing import Any

import pytest

from factoryd.core.config_parse import parse_config
from factoryd.core.errors import ConfigInvalid

SMALL = """
[[sources]]
kind = "folder"
path = "issues"

[repos.demo]
path = "demo-repo"

[[routes]]
label = "factory"
repo = "demo"
recipe = "pair"

[recipes.pair]
stages = [["implementer"], ["reviewer"]]

[agents.implementer]
kind = "command"
name = "impl"
command = ["./implement.sh", "{issue.key}", "{issue_file}"]

[agents.reviewer]
kind = "command"
command = ["review"]
"""


def parse(text):
    return parse_config(tomllib.loads(text), "f.toml")


def find_mistakes(text):
    """Return the mistakes of a text by key."""
    return find_document_mistakes(tomllib.loads(text))


def find_document_mistakes(document):
    with pytest.raises(ConfigInvalid) as caught:
        parse_config(document, "f.toml")
    found = {}
    for mistake in caught.value.mistakes:
        file, key, reason = mistake.split(": ", 2)
        assert file == "f.toml"
        assert "\n" not in mistake
        found[key] = reason
    return found


def change(key, value):
    """Return the small configuration with one key set, as a document."""
    document = tomllib.loads(SMALL)
    *path, last = re.findall(r"[^.\[\]]+", key)
    table: Any = document
    for step in path:
        table = table[int(step)] if isinstance(table, list) else table.setdefault(step, {})
    table[last] = value
    return document
