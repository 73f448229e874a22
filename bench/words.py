"""What agents report, with the moment at which it was heard."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self


class Word(NamedTuple):
    """Something that an agent has said."""

    moment: float
    """As `time.perf_counter` counts, when it was heard (seconds)."""
    word: str
    number: int


class Words:
    """A named pipe into which agents write; a thread notes when each line comes out of it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o666)
        # Writable for us too, so that it never ends and no agent waits for a reader.
        self._pipe = os.open(path, os.O_RDWR)
        self._heard: list[Word] = []
        self._trouble: ValueError | None = None
        self._more = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the listening."""
        os.write(self._pipe, b"\nquit 0\n")
        self._listener.join()
        os.close(self._pipe)

    def forget(self) -> None:
        """Forget what was said."""
        with self._more:
            self._heard.clear()

    def all(self, word: str) -> list[Word]:
        """Return what was said of one kind, in the order it was heard."""
        with self._more:
            return [each for each in self._heard if each.word == word]

    def wait(self, word: str, count: int, *, within_s: float = 120) -> float:
        """Return the moment at which so many different agents had said a word.

        Raises `TimeoutError` when they do not in time, `ValueError` when something else was said.
        """
        until = time.monotonic() + within_s
        with self._more:
            while (moment := self._moment(word, count)) is None:
                if self._trouble is not None:
                    raise self._trouble
                left = until - time.monotonic()
                if left <= 0:
                    said = {each.number for each in self._heard if each.word == word}
                    raise TimeoutError(f"{len(said)} of {count} agents said {word}")
                self._more.wait(left)
        return moment

    def _moment(self, word: str, count: int) -> float | None:
        said: set[int] = set()
        if len(self._heard) < count:
            return None
        for each in self._heard:
            if each.word == word:
                said.add(each.number)
            if len(said) >= count:
                return each.moment
        return None

    def _listen(self) -> None:
        rest = b""
        while True:
            *lines, rest = (rest + os.read(self._pipe, 1 << 16)).split(b"\n")
            moment = time.perf_counter()
            with self._more:
                for line in filter(None, lines):
                    self._note(moment, line)
                self._more.notify_all()
            if b"quit 0" in lines:
                return

    def _note(self, moment: float, line: bytes) -> None:
        try:
            word, number = line.decode().split()
            self._heard.append(Word(moment, word, int(number)))
        except ValueError:
            self._trouble = ValueError(f"{line!r} is not a word and a number")
