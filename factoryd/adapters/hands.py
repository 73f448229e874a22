"""A few threads of one adapter's own, for short blocking calls that come in hundreds.

With `trio.to_thread` a thread is woken for every call. Here one that is done takes the next call by
itself: when many agents start at once, threads that wake one another and then wait for one another
cost more than what they do.
"""

import contextvars
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Doable(Protocol):
    def do(self) -> None: ...


class _Job(Generic[T]):
    """A call on its way; whoever takes its ticket decides whether it is ever made."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._context = contextvars.copy_context()
        self._token = trio.lowlevel.current_trio_token()
        self._tickets = deque([None])
        self._result: outcome.Outcome[T] | None = None
        self.asking: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        """Who waits for the result."""

    def take_ticket(self) -> bool:
        """Say whether the call had neither begun nor been withdrawn before."""
        return _take(self._tickets)

    def do(self) -> None:
        """Make the call, unless it was withdrawn, and wake whoever asked for it; in a thread."""
        if not self.take_ticket():
            return
        self._result = outcome.capture(self._context.run, self._call)
        with suppress(trio.RunFinishedError):  # given up, and everything else is over, too
            self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        if self.asking is not None:
            trio.lowlevel.reschedule(self.asking)

    def result(self) -> T:
        """Return what the call returned, or raise what it raised."""
        assert self._result is not None
        return self._result.unwrap()


class Hands:
    """Up to `most` threads at once, which make calls in the order of asking.

    No lock is held: what threads share are deques, and each step on one is atomic.
    """

    def __init__(self, most: int) -> None:
        self._jobs = deque[_Doable]()
        self._free = deque([None] * most)

    async def do(self, call: Callable[[*Ts], T], *args: *Ts, give_up: bool = False) -> T:
        """Make a blocking call in a thread, with the labels of this task, and return its result.

        Cancellable until it begins; then only with `give_up`, and it goes on with nobody to hear.
        Raises `RuntimeError` when there can be no thread; then the call is never made.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(lambda: call(*args))

        def withdraw(_: object) -> trio.lowlevel.Abort:
            if not job.take_ticket() and not give_up:
                return trio.lowlevel.Abort.FAILED
            job.asking = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._jobs.append(job)
        if _take(self._free):
            try:
                trio.lowlevel.start_thread_soon(self._work, lambda _: None)
            except RuntimeError:
                job.take_ticket()
                self._free.append(None)
                raise
        await trio.lowlevel.wait_task_rescheduled(withdraw)
        return job.result()

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.popleft()
            except IndexError:
                self._free.append(None)
                # A call may have come right before that, when no thread was free to be started.
                if not self._jobs or not _take(self._free):
                    return
            else:
                job.do()


def _take(things: deque[None]) -> bool:
    """Take one away and say whether there was one."""
    try:
        things.pop()
    except IndexError:
        return False
    return True
