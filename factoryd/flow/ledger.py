"""The ledger's task: checks facts, commits them in groups, applies them, then tells.

The order is the promise: a fact that is illegal changes nothing, a fact that is not committed is
never applied, a fact that is not applied is never shown.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import trio

from factoryd.core.errors import IllegalFact, LedgerUnavailable
from factoryd.core.events import AnyFact, Entry, Recorded, kind_of, run_of
from factoryd.core.narration import FACTS_LOGGER, message_id, sentence, weight
from factoryd.core.registry import Draft, Registry
from factoryd.ports import Clock, LedgerStore

logger = logging.getLogger(__name__)
facts = logging.getLogger(FACTS_LOGGER)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RETRY_DELAY_S = 1.0
"""How long to wait before trying again to write to a disk that refused."""

GATHER_S = 0.02
"""How long at most facts gather for one commit while many come at once: each has its price."""

MANY = 3
"""So many who record at once are a burst, which comes back as one; fewer wait for no others."""

SNAPSHOT_EVERY = 5000
"""Facts after which a snapshot is taken, so that a start replays no more than about so many."""

_LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error")}


class _Request:
    """Facts waiting to be committed together, and the answer to whoever waits for it."""

    def __init__(self, facts: Sequence[AnyFact]) -> None:
        self.facts = facts
        self.error: Exception | None = None
        self.refusal: IllegalFact | None = None
        """Told only after what it contradicts is committed: who hears it sees that applied."""
        self._answered = False
        self._waiting: trio.lowlevel.Task | None = None

    def answer(self, error: Exception | None) -> None:
        """Wake whoever waits: committed and applied, or refused with an error; the first counts."""
        if not self._answered:
            self._answered = True
            self.error = error
            if self._waiting is not None:
                trio.lowlevel.reschedule(self._waiting)

    async def wait_answer(self) -> None:
        """Return once there is an answer; not cancellable.

        That takes no cancel scope here, and an agent's start records several facts.
        """
        if not self._answered:
            self._waiting = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)


class Ledger:
    """The one writer of facts, and the registry as it is after the last committed one."""

    def __init__(self, store: LedgerStore, registry: Registry, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._send, self._receive = trio.open_memory_channel[_Request](1024)
        self._changed = trio.Event()
        self._giving_up = trio.Event()
        self._expected = 0
        self._gathered = trio.Event()
        self._one_call = trio.Lock()
        self._writing = trio.Lock()
        self._snapshot_seq = registry.seq
        self.registry = registry
        self.trouble: str | None = None
        """Why facts cannot be written now; None while they can."""
        self.refused_at = -math.inf
        """When the disk last refused a fact (trio's clock): it was asked, and did answer."""

    async def record(self, *facts: AnyFact) -> None:
        """Commit facts together, all or none, and return once they are applied.

        Raises `IllegalFact` when the state forbids one of them. While the disk refuses, this
        waits, and raises `LedgerUnavailable` only once the daemon is giving up. Not cancellable:
        whoever recorded a fact knows whether it is one.
        """
        if not facts:
            return
        request = _Request(facts)
        try:
            await self._submit(request)
        except trio.BrokenResourceError:
            raise LedgerUnavailable("the ledger is closed") from None
        await request.wait_answer()
        if request.error is not None:
            raise request.error

    async def wait_beyond(self, seq: int) -> None:
        """Return once a fact numbered above `seq` is applied."""
        while self.registry.seq <= seq:
            await self._changed.wait()

    async def _submit(self, request: _Request) -> None:
        try:
            self._send.send_nowait(request)
        except trio.WouldBlock:
            with trio.CancelScope(shield=True):
                await self._send.send(request)
        self._tell_gathered()

    async def _gather(self, expected: int) -> None:
        """Wait until so many wait again, as were just answered: many of them record again soon."""
        self._expected, self._gathered = expected, trio.Event()
        self._tell_gathered()
        with trio.move_on_after(GATHER_S):
            await self._gathered.wait()

    def _tell_gathered(self) -> None:
        if self._send.statistics().current_buffer_used >= self._expected:
            self._gathered.set()

    async def read(self, since: int, limit: int, issue: str | None) -> list[Recorded]:
        """Return up to `limit` facts numbered above `since`, oldest first."""
        return await self._in_store(self._store.read_facts, since, limit, issue)

    async def consult(self, look: Callable[[LedgerStore], T]) -> T:
        """Return what `look` reads from the store; it runs in a thread, and keeps facts waiting."""
        return await self._in_store(look, self._store)

    def give_up(self) -> None:
        """Stop waiting for a disk that refuses: what cannot be written now never will be."""
        self._giving_up.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve `record` until cancelled, and refuse whoever asks after that."""
        task_status.started()
        group: list[_Request] = []
        try:
            async for request in self._receive:
                group = [request, *self._waiting(255)]
                with trio.CancelScope(shield=True):
                    async with self._writing:
                        await self._commit(group)
                if len(group) >= MANY:
                    await self._gather(len(group))
        finally:
            for request in [*group, *self._waiting(float("inf"))]:
                request.answer(LedgerUnavailable("the ledger is closed"))
            self._receive.close()

    async def snapshot(self) -> None:
        """Store the present state, so that the next start has little to replay."""
        seq, body = self.registry.seq, self.registry.snapshot()
        await self._in_store(self._store.save_snapshot, seq, body)
        self._snapshot_seq = seq

    async def forget(
        self, choose: Callable[[Registry], Sequence[str]], daemon_before: float
    ) -> Sequence[str]:
        """Drop the issues that `choose` picks, and what daemons did before a moment; return those.

        No fact is committed in between, so none can concern an issue that is being dropped. The
        snapshot is renewed first, so that dying in between loses nothing.
        """
        async with self._writing:
            keys = choose(self.registry)
            if keys:
                for key in keys:
                    self.registry.forget(key)
                await self.snapshot()
                await self._in_store(self._store.forget, keys, self._snapshot_seq, daemon_before)
        return keys

    def _waiting(self, most: float) -> Iterator[_Request]:
        with suppress(trio.WouldBlock):
            while most > 0:
                yield self._receive.receive_nowait()
                most -= 1

    async def _in_store(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        async with self._one_call:
            return await trio.to_thread.run_sync(call, *args)

    def _check(self, group: Sequence[_Request]) -> tuple[Draft, list[Entry], list[_Request]]:
        draft, entries, accepted = Draft(self.registry), list[Entry](), list[_Request]()
        for request in group:
            trial = draft.fork()
            try:
                entries += [trial.add(fact, self._clock.now()) for fact in request.facts]
            except IllegalFact as error:
                request.refusal = error
            else:
                draft = trial
                accepted.append(request)
        return draft, entries, accepted

    async def _commit(self, group: Sequence[_Request]) -> None:
        draft, entries, accepted = self._check(group)
        if accepted:
            await self._commit_accepted(draft, entries, accepted)
        for request in group:
            if request.refusal is not None:
                request.answer(request.refusal)

    async def _commit_accepted(
        self, draft: Draft, entries: Sequence[Entry], accepted: Sequence[_Request]
    ) -> None:
        try:
            recorded = await self._append(entries)
        except LedgerUnavailable as error:
            for request in accepted:
                request.answer(error)
        except Exception as error:  # noqa: BLE001  a fact the store refuses costs only its own request
            await self._commit_apart(accepted, error)
        else:
            self.registry.accept(draft, recorded[-1].seq)
            self._tell(recorded)
            for request in accepted:
                request.answer(None)
            await self._bound_replay()

    async def _bound_replay(self) -> None:
        if self.registry.seq - self._snapshot_seq < SNAPSHOT_EVERY:
            return
        try:
            await self.snapshot()
        except LedgerUnavailable as error:
            logger.warning("no snapshot, the next start replays more: %s", error)

    async def _commit_apart(self, group: Sequence[_Request], error: Exception) -> None:
        if len(group) == 1:
            group[0].answer(error)
            return
        for request in group:
            await self._commit([request])

    async def _append(self, entries: Sequence[Entry]) -> list[Recorded]:
        while True:
            try:
                recorded = await self._in_store(self._store.append, entries)
            except LedgerUnavailable as error:
                if self.trouble is None:
                    logger.error("facts cannot be written, dispatching stops: %s", error)  # noqa: TRY400  for a person
                self.trouble = str(error)
                self.refused_at = trio.current_time()
                if self._giving_up.is_set():
                    raise
                with trio.move_on_after(RETRY_DELAY_S):
                    await self._giving_up.wait()
            else:
                if self.trouble is not None:
                    logger.warning("facts can be written again, dispatching goes on")
                self.trouble = None
                return recorded

    def _tell(self, recorded: Sequence[Recorded]) -> None:
        for one in recorded:
            log_fact(one.fact)
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def log_fact(fact: AnyFact) -> None:
    """Write one journal line for a fact, with the fields people search by."""
    level = _LEVELS[weight(fact)]
    if not facts.isEnabledFor(level):
        return
    facts.log(
        level,
        "%s",
        sentence(fact),
        extra={
            "factory_fact": kind_of(fact),
            "factory_issue": fact.issue or None,
            "factory_agent": getattr(fact, "agent", None),
            "factory_run": run_of(fact),
            "message_id": message_id(type(fact)),
        },
    )
