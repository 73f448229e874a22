"""The pages of the documentation, taken apart: the blocks of commands, and what they promise to print."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BOOTED_PAGE = ROOT / "docs/how-to/systemd.md"
"""What it says is typed into booted machines, by `tests/systemd/test_page.py`."""

_BLOCK = re.compile(r"^```(\w*) ?(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LOOK = r"(factoryctl (status|logs|events)|journalctl|systemctl( --user)? (status|show))( .*)?\n"
_ONLY_LOOKS = re.compile(f"({_LOOK})+")
_OF_SYSTEMD = ("systemctl", "journalctl")


class Block(NamedTuple):
    """Commands for a shell, and what they print: lines of `...` are anything."""

    language: str
    user: str
    commands: str
    promised: str

    @property
    def only_looks(self) -> bool:
        """Say whether the commands change nothing, so that they may be repeated."""
        return bool(_ONLY_LOOKS.fullmatch(self.commands))


def name(page: Path) -> str:
    """Return a page's path in the tree."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[Block]:
    """Yield the blocks of a language (`sh`, or `console` for booted machines), in order."""
    found = _BLOCK.findall(page.read_text())
    for (kind, user, text), follows in zip(found, [*found, ("", "", "")][1:], strict=True):
        if kind == language:
            yield Block(kind, user, text, follows[2] if follows[0] == "text" else "")


def shows(printed: str, promised: str) -> bool:
    """Say whether all promised lines come in this order; `...` is anything, blanks are alike."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in promised.splitlines():
        wanted = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
        if not any(re.fullmatch(wanted, found) for found in lines):
            return False
    return True


def systemd_commands(text: str) -> Iterator[str]:
    """Yield the commands of systemctl and journalctl in a page: in blocks, and in the midst of text."""
    for kind, _, lines in _BLOCK.findall(text):
        if kind != "text":
            yield from (line.strip() for line in lines.splitlines() if _is_of_systemd(line))
    for words in _INLINE.findall(_BLOCK.sub("", text)):
        if _is_of_systemd(words):
            yield words


def _is_of_systemd(line: str) -> bool:
    return line.split(" ", maxsplit=1)[0] in _OF_SYSTEMD
