"""Manual pages in man(7), written from the little Markdown that the documentation uses.

That is: headings, paragraphs, lists, indented code blocks between fences, and tables of two columns,
in which a row becomes a term and what it means.
"""

import re
import textwrap
from collections.abc import Iterator

WIDTH = 78
"""A line of a page's source is no longer: `mandoc -Tlint` wants it so."""

_INLINE = re.compile(
    r"`(?P<literal>[^`]+)`"
    r"|(?P<option>(?<!\S)--[a-z][a-z-]*)"
    r"|\*(?P<variable>[^*\s]+)\*"
    r"|\[(?P<text>[^]]+)\]\([^)]*\)"
)
_ITEM = re.compile(r"(?:-|(?P<number>\d+)\.) +(?P<text>.*)", re.DOTALL)
_SPECIAL = {"\u00a0": r"\~", "\\": r"\e", "~": r"\(ti", "^": r"\(ha", "`": r"\(ga", '"': r"\(dq"}
_LITERAL = _SPECIAL | {"-": r"\-", "'": r"\(aq"}


def prose(text: str) -> str:
    """Return text as roff: `code` and --options are bold, *variables* slanted, a link is its text."""
    parts: list[str] = []
    end = 0
    for found in _INLINE.finditer(text):
        parts.append(_escape(text[end : found.start()], _SPECIAL))
        parts.append(_inline(found))
        end = found.end()
    return "".join([*parts, _escape(text[end:], _SPECIAL)])


def literal(text: str) -> str:
    """Return what is typed as it stands here: bold, with plain hyphens and quotes."""
    return rf"\fB{_escape(text, _LITERAL)}\fR"


def variable(text: str) -> str:
    """Return what stands for something else: slanted."""
    return rf"\fI{_escape(text, _LITERAL)}\fR"


def render(markdown: str) -> str:
    """Return the source of a page's body; `#` opens a section, `##` a subsection."""
    return "".join(f"{line}\n" for line in _lines(markdown))


def title(name: str, section: int, date: str, version: str, manual: str) -> str:
    """Return a page's first line."""
    return f'.TH {name.upper()} {section} {date} "{version}" "{manual}"\n'


def fill(source: str) -> list[str]:
    """Return roff text in lines of which none is long, or taken for a macro, a sentence on its own."""
    lines = [
        line
        for sentence in re.split(r"(?<=[.?!]) +", source)
        for line in textwrap.wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    return [rf"\&{line}" if line[0] in ".'" else line for line in lines]


def _inline(found: re.Match[str]) -> str:
    if found["literal"] or found["option"]:
        return literal(found["literal"] or found["option"])
    return variable(found["variable"]) if found["variable"] else prose(found["text"])


def _escape(text: str, special: dict[str, str]) -> str:
    return "".join(
        special.get(one, one if one.isascii() else rf"\[u{ord(one):04X}]") for one in text
    )


def _lines(markdown: str) -> Iterator[str]:
    opened = False  # whether the text before this block, if any, wants a break before the next
    for block in _blocks(markdown):
        heading = re.match(r"(#{1,2}) (.*)", block)
        if heading:
            yield f".{('SH', 'SS')[len(heading[1]) - 1]} {prose(heading[2])}"
            opened = False
            continue
        if block.startswith("|"):
            yield from _table(block)
        elif _ITEM.match(block):
            yield from _list(block)
        else:
            if opened:
                yield ".PP"
            if block.startswith("```"):
                yield from _example(block)
            else:
                yield from fill(prose(" ".join(block.split())))
        opened = True


def _blocks(markdown: str) -> Iterator[str]:
    """Cut a text at empty lines, but not within fences."""
    block: list[str] = []
    fenced = False
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("```"):
            fenced = not fenced
        if line or fenced:
            block.append(line)
        elif block:
            yield "\n".join(block)
            block = []


def _example(block: str) -> Iterator[str]:
    yield from (".RS 4", ".nf")
    for line in block.splitlines()[1:-1]:
        text = _escape(line, _LITERAL)
        yield rf"\&{text}" if not text or text[0] in ".'" else text
    yield from (".fi", ".RE")


def _table(block: str) -> Iterator[str]:
    for row in block.splitlines()[2:]:
        term, meaning = (one.strip() for one in re.split(r"(?<!\\)\|", row)[1:3])
        yield ".TP"
        yield prose(term)
        yield from fill(prose(meaning.replace(r"\|", "|")))


def _list(block: str) -> Iterator[str]:
    for item in re.split(r"\n(?=- |\d+\. )", block):
        found = _ITEM.fullmatch(item)
        assert found, f"no list: {block}"
        yield f".IP {found['number']}. 4" if found["number"] else r".IP \(bu 4"
        yield from fill(prose(" ".join(found["text"].split())))
