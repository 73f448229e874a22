"""Placeholders in commands: filled in, and never more than their argument."""

from hypothesis import given, strategies as st

from factoryd.core.template import PLACEHOLDERS, escape, expand, find_literal

VALUES = {name: f"<{name}>" for name in PLACEHOLDERS}


def test_every_placeholder_becomes_its_value():
    command = [f"--x={{{name}}}" for name in PLACEHOLDERS]
    assert expand(command, VALUES) == tuple(f"--x=<{name}>" for name in PLACEHOLDERS)


@given(st.text())
def test_nothing_in_an_issue_becomes_more_than_its_argument(title):
    command = ("run", "--title={issue.title}", "{{{issue.title}}}", "last")
    kept = title.replace("\0", "")
    expected = ("run", f"--title={kept}", f"{{{kept}}}", "last")
    assert expand(command, {**VALUES, "issue.title": title}) == expected


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_an_escaped_text_is_itself(text):
    assert expand((escape(text),), {}) == (text,)
    assert find_literal(escape(text)) == text


def test_an_argument_with_a_placeholder_is_no_literal():
    assert find_literal("{run}") is None
    assert find_literal("{") is None
