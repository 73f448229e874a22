"""Fixtures and a configuration for tests of the flow: a factory on fakes, time that jumps."""

import pytest
import trio

from tests.fakes.factory import Factory
from tests.fakes.threads import run_inline
from tests.unit.configs import SMALL, parse

IMPL, REVIEW = "ar-1-impl", "ar-1-reviewer"

SETTINGS = """
[factory]
slots = 2
poll_interval = "30s"
[dispatch]
max_attempts = 2
error_cooldown = "60s"
time_limit = "4h"
[resume]
max_resumes = 1
delay = "1s"
[stop]
grace = "10s"
"""


@pytest.fixture
def factory(autojump_clock, monkeypatch, tmp_path):
    monkeypatch.setattr(trio.to_thread, "run_sync", run_inline)
    return Factory(parse(SMALL + SETTINGS), tmp_path)


def configure(factory, **sections):
    """Change the configuration: `dispatch={"max_attempts": 1}`; `daemon` is [factory]."""
    for section, values in sections.items():
        name = "factory" if section == "daemon" else section
        old = getattr(factory.config, name)
        if isinstance(old, dict):
            changed = {**old, **values}
        else:
            changed = type(old)(**{**_fields(old), **values})
        factory.config = type(factory.config)(**{**_fields(factory.config), name: changed})


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
