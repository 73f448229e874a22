"""The order in which all is measured: of one kind of work, all supervisors take turns."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from bench.results import Results
from bench.scale import Scale
from bench.sessions import Session, Sessions
from bench.work import (
    crash,
    growing,
    idling,
    looking,
    output,
    starting,
    stopping,
    succession,
    tree,
)


class Plan:
    """Measures at a scale; what one supervisor fails at is noted, and the others go on."""

    def __init__(self, sessions: Sessions, scale: Scale, results: Results) -> None:
        self._sessions = sessions
        self._scale = scale
        self._results = results

    def run(self) -> None:
        """Measure everything."""
        for part in (
            self._fleets,
            self._trees,
            self._crashes,
            self._successions,
            self._idle,
            self._output,
            self._growth,
        ):
            began = time.monotonic()
            part()
            name = part.__name__.strip("_")
            sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")

    def _fleets(self) -> None:
        """Start, look at and stop, all in the same session."""

        def measure(session: Session, count: int) -> None:
            starting.measure(session, count, self._results)
            looking.measure(session, count, self._results)
            idling.measure_memory(session, count, self._results)
            stopping.measure(session, count, self._results)

        for count, repeats in self._scale.fleets:
            for name in _turns(self._scale.peers, repeats):
                self._with(name, starting.WORK, partial(measure, count=count))

    def _trees(self) -> None:
        count, repeats = self._scale.trees
        for name in _turns(self._scale.peers, repeats):
            self._with(name, tree.WORK, lambda one: tree.measure(one, count, self._results))

    def _crashes(self) -> None:
        count, repeats = self._scale.crash
        for name in _turns(self._scale.peers, repeats):
            self._with(name, crash.WORK, lambda one: crash.measure(one, count, self._results))

        def again(session: Session) -> None:
            crash.measure(session, count, self._results, times=self._scale.sigkills)

        self._with("factoryd", crash.WORK, again)

    def _successions(self) -> None:
        for name in _turns(self._scale.peers, self._scale.successions):
            self._with(name, succession.WORK, lambda one: succession.measure(one, self._results))

    def _idle(self) -> None:
        """Have all up at the same time: what each uses is its own."""
        count, seconds = self._scale.idle
        if not count:
            return
        with ExitStack() as stack:
            sessions = []
            for name in self._scale.peers:
                session = stack.enter_context(self._sessions.open(name))
                starting.measure(session, count, Results())
                sessions.append(session)
            idling.measure_cpu(sessions, count, self._results, seconds=seconds)

    def _output(self) -> None:
        count, seconds = self._scale.output
        for name in self._scale.writing:
            measure = partial(output.measure, name, count, seconds, self._results)
            self._fenced(name, output.WORK, measure)

    def _growth(self) -> None:
        seconds = self._scale.growth_idle_s
        for count in self._scale.growth:
            for name in self._scale.growing:
                growing.measure(self._sessions, name, count, self._results, seconds=seconds)
        if self._scale.growth:
            growing.measure_database(self._sessions, self._scale.growth, self._results)

    def _with(self, name: str, work: str, measure: Callable[[Session], None]) -> None:
        def in_session() -> None:
            with self._sessions.open(name) as session:
                measure(session)

        self._fenced(name, work, in_session)

    def _fenced(self, name: str, work: str, measure: Callable[[], None]) -> None:
        try:
            measure()
        except Exception as error:  # noqa: BLE001  a peer's trouble is a result, too
            traceback.print_exc()
            self._results.reasons[work, name] = f"failed: {type(error).__name__}: {error}"[:200]


def _turns(names: Sequence[str], repeats: int) -> Iterator[str]:
    """Yield all names so many times, each time beginning with another."""
    for repeat in range(repeats):
        first = repeat * 3 % len(names)
        yield from (*names[first:], *names[:first])
