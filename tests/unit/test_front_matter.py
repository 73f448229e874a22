"""What an issue file may look like, and what is said of one that does not."""

import contextlib

import pytest
from hypothesis import given, strategies as st

from factoryd.adapters.sources.front_matter import Malformed, find_key_fault, parse_issue


def refuse(text: str | bytes) -> Malformed:
    with pytest.raises(Malformed) as caught:
        parse_issue(text if isinstance(text, bytes) else text.encode())
    return caught.value


def with_lines(*lines: str) -> str:
    return "\n".join(["---", "key: AR-1", "title: t", *lines, "---", "body\n"])


def test_every_field_is_read():
    issue = parse_issue(
        b"---\nkey: AR-255\ntitle: \"Fix: the #1 thing\"\nlabels: [factory, 'a b']\npriority: -2\n"
        b"team: AR\nproject: p\nurl: https://example.org/x#y\nrepo: demo\nrecipe: pair\n---\nDo it.\n"
    )
    assert (issue.key, issue.title) == ("AR-255", "Fix: the #1 thing")
    assert issue.labels == ("factory", "a b")
    assert issue.priority == -2
    assert (issue.team, issue.project, issue.repo, issue.recipe) == ("AR", "p", "demo", "pair")
    assert issue.url == "https://example.org/x#y"
    assert issue.body == "Do it.\n"


def test_labels_may_be_a_block_list_of_texts_and_of_names():
    issue = parse_issue(
        with_lines("labels:", "  - factory", "  - {name: bug, color: red}").encode()
    )
    assert issue.labels == ("factory", "bug")


@pytest.mark.parametrize("text", ["007", "on", "2024-01-01", "1e3", "null-ish", "0x10"])
def test_a_scalar_stays_the_text_it_is(text):
    issue = parse_issue(f"---\nkey: 007\ntitle: {text}\n---\n".encode())
    assert (issue.key, issue.title) == ("007", text)


@pytest.mark.parametrize("nothing", ["", "~", "null"])
def test_an_optional_field_may_be_empty(nothing):
    lines = (f"team: {nothing}", f"labels: {nothing}", f"priority: {nothing}")
    issue = parse_issue(with_lines(*lines).encode())
    assert (issue.team, issue.labels, issue.priority) == (None, (), None)


@given(body=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_the_body_is_kept_to_the_byte(body):
    issue = parse_issue(b"---\nkey: A\ntitle: t\n---\n" + body.encode())
    assert issue.body == body


def test_windows_line_ends_and_a_byte_order_mark_are_accepted():
    issue = parse_issue(b"\xef\xbb\xbf---\r\nkey: A\r\ntitle: t\r\n---\r\nx\r\n--- \r\n")
    assert (issue.title, issue.body) == ("t", "x\r\n--- \r\n")


def test_unknown_fields_are_left_to_others():
    assert parse_issue(with_lines("assignee: {a: [1, {b: c}]}").encode()).key == "AR-1"


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", 1, "empty"),
        (" \n\n", 1, "empty"),
        ("# hello\n", 1, "begin the file"),
        ("---", 1, "begin the file"),
        ("---\nkey: A\n", 1, "no end"),
        ("---\n---\nbody", 1, "`key` is missing"),
        ("---\nkey: A\n---\n", 1, "`title` is missing"),
        ("---\nkey: A\ntitle:\n---\n", 3, "`title` is empty"),
        ('---\nkey: A\ntitle: " "\n---\n', 3, "blank"),
        ("---\nkey: A\ntitle: [a]\n---\n", 3, "not a text"),
        ("---\nkey: A\ntitle: Fix: it\n---\n", 3, "quote"),
        ("---\nkey: A\ntitle: t\n  bad indent\n x: [\n---\n", 5, "mapping values"),
        ('---\nkey: A\ntitle: "a\\nb"\n---\n', 3, "line break"),
        ('---\nkey: A\ntitle: "\\e[31m"\n---\n', 3, "control character"),
        ('---\nkey: A\ntitle: "\\0"\n---\n', 3, "control character"),
        ("---\nkey: A\ntitle: t\x1b\n---\n", 3, "forbids"),
        (f"---\nkey: A\ntitle: {'x' * 1001}\n---\n", 3, "longer than 1000"),
        ("---\nkey: ../x\ntitle: t\n---\n", 2, "letters and digits"),
        ("---\ntitle: t\nkey: a/b\n---\n", 3, "letters and digits"),
        (f"---\nkey: {'x' * 300}\ntitle: t\n---\n", 2, "longer than 100"),
        (with_lines("priority: high"), 4, "whole number"),
        (with_lines("priority: 1.5"), 4, "whole number"),
        (with_lines("labels: factory"), 4, "not a list"),
        (with_lines("labels:", "  - factory", "  - {colour: red}"), 6, "no `name`"),
        (with_lines("labels: [a, '']"), 4, "blank"),
        (with_lines("labels: [a, ~]"), 4, "a label is empty"),
        (with_lines("title: again"), 4, "given twice"),
        (with_lines("? [a]", ": b"), 4, "a name is expected"),
        (with_lines("x: &a 1", "team: *a"), 4, "anchors"),
        (with_lines("team: *a"), 4, "anchors"),
        (with_lines("x: " + "[" * 20 + "]" * 20), 4, "nested too deeply"),
        (with_lines("x: " + "[" * 20_000), 4, "nested too deeply"),
        (with_lines("...", "--- x"), 5, "second document"),
        ("---\n- a\n- b\n---\n", 2, "not a list of"),
        ("---\njust text\n---\n", 2, "not a list of"),
        (f"---\n{'# x' * 30_000}\n---\n", 1, "longer than 64 KiB"),
        ("---\n" + "# x\n" * 30_000, 1, "longer than 64 KiB"),
        (b"---\nkey: A\ntitle: \xff\n---\n", 3, "UTF-8"),
        (b"---\nkey: A\n\ntitle: a\0b\n---\n", 4, "NUL"),
        ("---\nkey: A\ntitle: t\n---\nbody\0", 5, "NUL"),
    ],
)
def test_a_mistake_is_named_with_its_line(text, line, word):
    error = refuse(text)
    assert (error.line, word in error.reason) == (line, True), str(error)


def test_what_is_hostile_is_not_repeated_raw():
    error = refuse('---\ntitle: t\nkey: "\U0001f4a9\U000e0001"\n---\n')
    assert error.reason.isascii()


@pytest.mark.parametrize("key", ["AR-255", "a", "007", "A.b_c-d", "x" * 100])
def test_a_good_key_is_accepted(key):
    assert find_key_fault(key) is None


@pytest.mark.parametrize(
    "key",
    ["", ".", "..", "a..b", "-a", "a-", "a/b", "a b", "ä", "a\n", "a--b", "x" * 101, "a.lock"],
)
def test_a_bad_key_is_refused(key):
    assert find_key_fault(key)


@given(data=st.binary(max_size=300))
def test_no_bytes_make_the_parser_fail_otherwise(data):
    for text in (data, b"---\nkey: A\n" + data + b"\n---\n"):
        with contextlib.suppress(Malformed):
            assert parse_issue(text).key
