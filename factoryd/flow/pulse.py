"""The daemon's own heartbeat: it beats for the world only while every part makes progress."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio

from factoryd.core.config import Config
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.model import Data, ProcessIdentity
from factoryd.flow.settings import Settings
from factoryd.ports import Clock, HeartbeatFile, Notifier

logger = logging.getLogger(__name__)


class PulseReading(Data, frozen=True, kw_only=True):
    """How long a part has been busy with one thing, and how long it may be (seconds)."""

    name: str
    silent_s: float
    max_silence_s: float

    @property
    def late(self) -> bool:
        """Say whether the part makes no progress."""
        return self.silent_s > self.max_silence_s


class Pulse:
    """One part's sign of progress: waiting for something to do is fine for ever, doing it is not."""

    def __init__(
        self, name: str, max_silence_s: float, held_up_at: Callable[[], float] | None = None
    ) -> None:
        """`held_up_at`: when it was last known that others keep this part waiting; see `declare`."""
        self._name = name
        self._max_silence_s = max_silence_s
        self._held_up_at = held_up_at
        self._busy = dict[object, float]()

    @contextmanager
    def busy(self, more_s: float = 0.0) -> Generator[Callable[[], None]]:
        """Mark a piece of work; it must end within the maximum silence and `more_s` seconds.

        Yields what to call when a part of it is done: that much time is there for the next part.
        """
        token = object()

        def go_on() -> None:
            self._busy[token] = trio.current_time() + more_s

        go_on()
        try:
            yield go_on
        finally:
            del self._busy[token]

    def read(self) -> PulseReading:
        """Return how the part is doing now."""
        since = min(self._busy.values(), default=trio.current_time())
        if self._held_up_at is not None:
            since = max(since, self._held_up_at())
        return PulseReading(
            name=self._name,
            silent_s=max(0.0, trio.current_time() - since),
            max_silence_s=self._max_silence_s,
        )


class Pulses:
    """All pulses of a daemon, and the heartbeat that they feed together."""

    def __init__(
        self,
        *,
        settings: Settings,
        identity: ProcessIdentity,
        file: HeartbeatFile,
        notifier: Notifier,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._file = file
        self._notifier = notifier
        self._clock = clock
        self._pulses: list[Pulse] = []
        self._beats = 0
        self._beat_at: float | None = None
        self._late: frozenset[str] = frozenset()
        self._beating = trio.CancelScope()
        self._one_write = trio.Lock()
        self._own_thread = trio.CapacityLimiter(1)
        self.state = "starting"

    def declare(
        self, name: str, max_silence_s: float, held_up_at: Callable[[], float] | None = None
    ) -> Pulse:
        """Add a part that must not be busy with one thing for longer than `max_silence_s`.

        Its time begins anew at `held_up_at` (by trio's clock), for what the daemon itself cannot
        mend: a new daemon would wait for the same, and whatever it is shows as degraded itself.
        """
        pulse = Pulse(name, max_silence_s, held_up_at)
        self._pulses.append(pulse)
        return pulse

    def forget(self, pulse: Pulse) -> None:
        """Leave out a part that is no more."""
        self._pulses.remove(pulse)

    def readings(self) -> tuple[PulseReading, ...]:
        """Return how every part is doing now."""
        return tuple(pulse.read() for pulse in self._pulses)

    def late(self) -> tuple[str, ...]:
        """Return the names of the parts that make no progress."""
        return tuple(reading.name for reading in self.readings() if reading.late)

    @property
    def age_s(self) -> float | None:
        """Return the seconds since the last heartbeat; None before the first."""
        return None if self._beat_at is None else trio.current_time() - self._beat_at

    async def become(self, state: str) -> None:
        """Show a new state of the daemon in the heartbeat, at once."""
        self.state = state
        await self._beat()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Beat until cancelled: the file always, the watchdog only while no part is late."""
        await self._beat()
        task_status.started()
        with self._beating:
            while True:
                await self._settings.sleep(self._interval_s)
                await self._beat()

    def _interval_s(self, config: Config) -> float:
        return min(config.heartbeat.interval, self._notifier.watchdog_s / 3)

    async def end(self) -> None:
        """Take the heartbeat away for good: the proof that nothing of the daemon is left."""
        self._beating.cancel(reason="the daemon has stopped")
        try:
            async with self._one_write:
                await trio.to_thread.run_sync(self._file.remove, limiter=self._own_thread)
        except OSError as error:
            logger.warning("the heartbeat file cannot be removed: %s", error)

    async def _beat(self) -> None:
        late = frozenset(self.late())
        for name in sorted(late - self._late):
            logger.error("%s makes no progress", name)
        for name in sorted(self._late - late):
            logger.info("%s makes progress again", name)
        self._late = late
        if not late:
            self._notifier.alive()
            self._beats += 1
        config = self._settings.config.heartbeat
        beat = Heartbeat(
            pid=self._identity.pid,
            start_ticks=self._identity.start_ticks,
            boot_id=self._identity.boot_id,
            status=self.state,
            progress=self._beats,
            interval_s=config.interval,
            stale_after_s=config.stale_after,
            wall=self._clock.now(),
            boottime=self._clock.boottime(),
        )
        try:
            async with self._one_write:
                await trio.to_thread.run_sync(self._file.write, beat, limiter=self._own_thread)
        except OSError as error:
            logger.warning("the heartbeat file cannot be written: %s", error)
        self._beat_at = trio.current_time()
