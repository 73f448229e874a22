"""The reference page of the configuration is what the code says."""

import runpy
from pathlib import Path

from factoryd.core.config import Config
from factoryd.core.config_schema import describe
from tests.unit.configs import parse

ROOT = Path(__file__).parents[2]


def test_the_reference_page_says_what_the_code_says():
    page = runpy.run_path(str(ROOT / "docs/generate.py"))["config_page"]()
    assert (ROOT / "docs/reference/config.md").read_text() == page, "run docs/generate.py config"


def test_the_example_of_the_reference_page_is_a_sound_configuration():
    page = (ROOT / "docs/reference/config.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    assert isinstance(parse(example), Config)


def test_every_key_has_a_meaning():
    assert all(key.meaning for section in describe() for key in section.keys)
