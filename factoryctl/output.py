"""What reaches the terminal or the pipe: answers on stdout, everything else on stderr."""

import sys

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 9}


def printable(text: str) -> str:
    r"""Return the text with control characters spelled out (``\x1b``), tabs kept.

    So nothing that an agent or an issue says can steer the reader's terminal.
    """
    return text.translate(_ESCAPED)


def is_terminal() -> bool:
    """Say whether a person looks at the answer directly."""
    return sys.stdout.isatty()


def answer(text: str) -> None:
    """Print a part of the answer as it is, at once."""
    print(text, flush=True)


def say(text: str) -> None:
    """Tell the person something that is not the answer."""
    lines = (printable(line) for line in text.splitlines())
    print("factoryctl: " + "\n".join(lines), file=sys.stderr, flush=True)
