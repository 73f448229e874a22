"""What reaches the terminal or the pipe: answers on stdout, everything else on stderr."""

import sys

from factoryd.wire.plain import printable

__all__ = ["answer", "is_terminal", "printable", "say"]


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
