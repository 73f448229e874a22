"""Parses the text of an issue file: front matter in a small part of YAML, then the body."""

import re
import unicodedata
from collections.abc import Iterator

import yaml

from factoryd.core.model import Data

MAX_HEADER_BYTES = 64 * 1024
MAX_KEY_CHARACTERS = 100

_KEY = re.compile(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*", re.ASCII)
_FENCE = re.compile(r"---[ \t]*\r?\n?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TEXTS = ("key", "title", "team", "project", "url", "repo", "recipe")
_FIELDS = frozenset((*_TEXTS, "labels", "priority"))
_MAX_TEXT_CHARACTERS = 1000
_Loader = yaml.CBaseLoader if yaml.__with_libyaml__ else yaml.BaseLoader


class FrontMatter(Data, frozen=True, kw_only=True):
    """What an issue file says: the fields of its front matter, and the body byte for byte."""

    key: str
    title: str
    body: str
    labels: tuple[str, ...] = ()
    priority: int | None = None
    team: str | None = None
    project: str | None = None
    url: str | None = None
    repo: str | None = None
    recipe: str | None = None


class Malformed(Exception):
    """The text is not an issue; says where (line, from 1) and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class _Scalar(Data, frozen=True, kw_only=True):
    text: str
    plain: bool
    line: int


class _List(Data, frozen=True, kw_only=True):
    items: tuple["_Value", ...]
    line: int


class _Map(Data, frozen=True, kw_only=True):
    items: tuple[tuple[_Scalar, "_Value"], ...]
    line: int


_Value = _Scalar | _List | _Map


def parse_issue(data: bytes) -> FrontMatter:
    """Return what the bytes of an issue file say, or raise `Malformed`.

    Scalars are texts, whatever YAML would make of them (`007`, `on`, `2024-01-01`). Fields that
    are not known are left to others who read the file.
    """
    text = _decode(data)
    header, body = _split(text)
    fields = _read_fields(header)
    for name in ("key", "title"):
        if name not in fields:
            raise Malformed(1, f"`{name}` is missing: add a line `{name}: ...`")
    texts = {name: _read_text(name, fields[name]) for name in _TEXTS if name in fields}
    key, title = texts.get("key"), texts.get("title")
    if key is None or title is None:
        name = "key" if key is None else "title"
        raise Malformed(fields[name].line, f"`{name}` is empty: fill it in")
    if fault := find_key_fault(key):
        raise Malformed(fields["key"].line, f"key {shorten(key)}: {fault}")
    return FrontMatter(
        key=key,
        title=title,
        body=body,
        labels=_read_labels(fields["labels"]) if "labels" in fields else (),
        priority=_read_priority(fields["priority"]) if "priority" in fields else None,
        team=texts.get("team"),
        project=texts.get("project"),
        url=texts.get("url"),
        repo=texts.get("repo"),
        recipe=texts.get("recipe"),
    )


def find_key_fault(key: str) -> str | None:
    """Say why this cannot be the key of an issue; None when it can.

    A key becomes part of paths, branch names and agent names.
    """
    if len(key) > MAX_KEY_CHARACTERS:
        return f"is longer than {MAX_KEY_CHARACTERS} characters: shorten it"
    if not _KEY.fullmatch(key):
        return "use letters and digits, joined by single . _ or - as in AR-255"
    if key.lower().endswith(".lock"):
        return "ends in .lock, which git refuses in branch names: choose another"
    return None


def shorten(text: str) -> str:
    """Return the text quoted for a message: one line, printable, not long."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")


def _decode(data: bytes) -> str:
    if not data.strip():
        raise Malformed(1, "the file is empty: begin it with a line `---`")
    if (at := data.find(b"\0")) >= 0:
        raise Malformed(_line_of(data, at), "has a NUL byte: an issue is a text file")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Malformed(
            _line_of(data, error.start), "is not UTF-8 text: save the file as UTF-8"
        ) from error


def _line_of(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def _split(text: str) -> tuple[str, str]:
    """Return what stands between the two fences, and what follows the second."""
    start = text.find("\n") + 1
    if not start or not _FENCE.fullmatch(text[:start]):
        raise Malformed(1, "begin the file with a line `---`, the front matter follows it")
    at = start
    while at < len(text) and at - start <= MAX_HEADER_BYTES:
        end = text.find("\n", at) + 1 or len(text)
        if text.startswith("---", at) and _FENCE.fullmatch(text, at, end):
            header = text[start:at]
            if len(header.encode()) > MAX_HEADER_BYTES:
                break
            return header, text[end:]
        at = end
    if at < len(text):
        raise Malformed(1, f"the front matter is longer than {MAX_HEADER_BYTES // 1024} KiB")
    raise Malformed(1, "the front matter has no end: close it with a line `---`")


def _read_fields(header: str) -> dict[str, _Value]:
    try:
        document = _read_document(header)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        problem = error.problem or error.context or "is not YAML"
        raise Malformed(line + 2, f"{problem}: quote the text if it holds : # [ or @") from error
    except yaml.YAMLError as error:
        raise Malformed(_find_unprintable(header), "has a character YAML forbids") from error
    if not isinstance(document, _Map):
        raise Malformed(document.line, "the front matter is not a list of `name: value` lines")
    fields: dict[str, _Value] = {}
    for name, value in document.items:
        if name.text in fields and name.text in _FIELDS:
            raise Malformed(name.line, f"`{name.text}` is given twice: remove one")
        fields[name.text] = value
    return fields


def _find_unprintable(header: str) -> int:
    """Return the line of the first control character, in the file that the header is part of."""
    lines = header.split("\n")
    bad = (n for n, line in enumerate(lines, 2) if any(_is_control(c) for c in line.rstrip("\r")))
    return next(bad, 1)


def _read_document(header: str) -> _Value:
    """Return the one document, read from events so that nothing nested or shared is ever built."""
    events = yaml.parse(header, Loader=_Loader)
    for event in events:
        if isinstance(event, yaml.StreamEndEvent):
            return _Map(items=(), line=1)
        if isinstance(event, yaml.DocumentStartEvent):
            document = _read_value(next(events), events, depth=0)
            for rest in events:
                if isinstance(rest, yaml.DocumentStartEvent):
                    raise Malformed(_line(rest), "a second document begins: keep one")
            return document
    raise AssertionError("a YAML stream has an end")


def _read_value(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> _Value:
    line = _line(event)
    if depth > 8:
        raise Malformed(line, "is nested too deeply")
    if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
        raise Malformed(line, "anchors and aliases (& and *) are not allowed: quote the text")
    match event:
        case yaml.ScalarEvent():
            return _Scalar(text=event.value, plain=not event.style, line=line)
        case yaml.SequenceStartEvent():
            return _List(items=tuple(_read_until_end(events, depth)), line=line)
        case yaml.MappingStartEvent():
            return _Map(items=tuple(_read_pairs(events, depth)), line=line)
        case _:
            raise AssertionError(event)


def _read_until_end(events: Iterator[yaml.Event], depth: int) -> Iterator[_Value]:
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            return
        yield _read_value(event, events, depth + 1)


def _read_pairs(events: Iterator[yaml.Event], depth: int) -> Iterator[tuple[_Scalar, _Value]]:
    values = _read_until_end(events, depth)
    for name in values:
        if not isinstance(name, _Scalar):
            raise Malformed(name.line, "a name is expected before the colon")
        yield name, next(values)


def _line(event: yaml.Event) -> int:
    """Return the line in the file: marks count from 0, and the fence is not part of the header."""
    return event.start_mark.line + 2 if event.start_mark else 1


def _is_null(value: _Value) -> bool:
    return isinstance(value, _Scalar) and value.plain and value.text in _NULLS


def _read_text(name: str, value: _Value) -> str | None:
    if _is_null(value):
        return None
    if not isinstance(value, _Scalar):
        raise Malformed(value.line, f"`{name}` is not a text: quote it if it is meant as one")
    text = value.text
    if not text.strip():
        raise Malformed(value.line, f"`{name}` is blank: fill it in")
    if len(text) > _MAX_TEXT_CHARACTERS and name != "key":
        raise Malformed(
            value.line, f"`{name}` is longer than {_MAX_TEXT_CHARACTERS} characters: shorten it"
        )
    if any(_is_control(character) for character in text):
        raise Malformed(value.line, f"`{name}` has a line break or control character: remove it")
    return text


def _is_control(character: str) -> bool:
    return character != "\t" and unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _read_priority(value: _Value) -> int | None:
    if _is_null(value):
        return None
    if not isinstance(value, _Scalar) or not _INTEGER.fullmatch(value.text):
        raise Malformed(value.line, "`priority` is not a whole number: write one as 1")
    return int(value.text)


def _read_labels(value: _Value) -> tuple[str, ...]:
    if _is_null(value):
        return ()
    if not isinstance(value, _List):
        raise Malformed(value.line, "`labels` is not a list: write it as [factory, bug]")
    return tuple(_read_label(item) for item in value.items)


def _read_label(item: _Value) -> str:
    if isinstance(item, _Map):
        names = [value for name, value in item.items if name.text == "name"]
        if len(names) != 1:
            raise Malformed(item.line, "a label has no `name`")
        item = names[0]
    label = _read_text("label", item)
    if label is None:
        raise Malformed(item.line, "a label is empty: remove it")
    return label
