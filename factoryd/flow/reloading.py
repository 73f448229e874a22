"""Reads the configuration anew while the daemon runs, and has every part go by it."""

import logging
from collections.abc import Callable

import trio

from factoryd.core.config import Config, SourceConfig
from factoryd.core.config_change import list_changes, list_restarts
from factoryd.core.errors import ConfigInvalid, FactoryError, LedgerUnavailable
from factoryd.core.events import ConfigurationLoaded
from factoryd.flow.scheduler import Scheduler
from factoryd.flow.shop import Shop
from factoryd.flow.sources import MakeSource
from factoryd.flow.stopping import stop_policy
from factoryd.ports import IssueSource, Notifier
from factoryd.wire.answers import ReloadReply

logger = logging.getLogger(__name__)

READ_S = 10.0
"""How long reading the file may take."""

MAX_MISTAKES = 100
"""Mistakes that are told; of more than those only their number."""

EXTEND_S = 60.0
"""Asked of the service manager for one reload."""


class Reloader:
    """Replaces the configuration, or keeps it and tells why; one reload at a time."""

    def __init__(
        self,
        shop: Shop,
        scheduler: Scheduler,
        notifier: Notifier,
        read: Callable[[], Config],
        make_source: MakeSource,
        *,
        file: str,
    ) -> None:
        """`read` blocks, and raises `ConfigInvalid`; `file` is what its mistakes are told of."""
        self.closed = False
        """The daemon is stopping: nothing is loaded any more."""
        self._shop = shop
        self._scheduler = scheduler
        self._notifier = notifier
        self._read = read
        self._make_source = make_source
        self._file = file
        self._started = shop.config
        self._asked = trio.Event()
        self._one_reload = trio.Lock()
        self._own_thread = trio.CapacityLimiter(1)

    def ask(self) -> None:
        """Have `run` reload soon; asked again before it has begun, it does so once."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever asked to, until cancelled; the log has what came of it."""
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            try:
                await self.reload()
            except FactoryError as error:
                logger.warning("the configuration is not read: %s", error)

    async def reload(self) -> ReloadReply:
        """Read the file and go by it from now on; with mistakes, tell them and change nothing.

        What runs goes on as it began. Raises `FactoryError` when the daemon is stopping, or facts
        cannot be written.
        """
        async with self._one_reload:
            self._check_open()
            self._notifier.reloading()
            self._notifier.extend(EXTEND_S)
            try:
                return await self._reload()
            finally:
                if not self.closed:
                    self._notifier.ready()

    async def _reload(self) -> ReloadReply:
        try:
            config = await self._load()
        except ConfigInvalid as error:
            self._shop.settings.mistakes = error.mistakes
            for mistake in error.mistakes:
                logger.error("configuration refused: %s", mistake)  # noqa: TRY400  it is a sentence
            return ReloadReply(changed=(), restart=(), mistakes=error.mistakes)
        self._check_open()
        old = self._shop.config
        sources = [await self._make_source(one) for one in _lacking(old, config)]
        await self._shop.ledger.record(
            ConfigurationLoaded(
                stop=stop_policy(config.stop, config.protect), grace_s=config.stop.grace
            )
        )
        async with self._scheduler.one_look:
            self._apply(config, sources)
        changed = list_changes(old, config)
        logger.info("configuration loaded anew: %s", ", ".join(changed) or "nothing has changed")
        restart = list_restarts(self._started, config)
        return ReloadReply(changed=changed, restart=restart, mistakes=())

    def _check_open(self) -> None:
        if self.closed:
            raise FactoryError(
                "factoryd is stopping: it reads the configuration when it is started again"
            )
        if self._shop.ledger.trouble is not None:
            raise LedgerUnavailable(f"{self._shop.ledger.trouble}; until then nothing is reloaded")

    async def _load(self) -> Config:
        """Return what the file holds; raise `ConfigInvalid` whatever is wrong with it."""
        try:
            with trio.fail_after(READ_S):
                return await trio.to_thread.run_sync(
                    self._read, abandon_on_cancel=True, limiter=self._own_thread
                )
        except ConfigInvalid as error:
            raise ConfigInvalid(self._shorten(error.mistakes)) from error
        except trio.TooSlowError:
            reason = f"cannot be read: nothing has come of it for {READ_S:g} s"
            raise ConfigInvalid((f"{self._file}: {reason}",)) from None
        except Exception as error:
            logger.exception("an error inside factoryd while it read %s", self._file)
            raise ConfigInvalid((f"{self._file}: an error inside factoryd: {error!r}",)) from error

    def _shorten(self, mistakes: tuple[str, ...]) -> tuple[str, ...]:
        beyond = len(mistakes) - MAX_MISTAKES
        if beyond <= 0:
            return mistakes
        check = f"`factoryd check-config --config {self._file}` shows them all"
        return (*mistakes[:MAX_MISTAKES], f"{self._file}: and {beyond} more mistakes: {check}")

    def _apply(self, config: Config, sources: list[IssueSource]) -> None:
        gone = [one.name for one in _lacking(config, self._shop.config)]
        self._shop.sources.replace(gone, sources, [one.name for one in config.sources])
        self._shop.settings.replace(config)
        self._shop.slots.resize(config.factory.slots)
        self._scheduler.forgive()


def _lacking(config: Config, other: Config) -> list[SourceConfig]:
    """Return the sources of `other` that `config` has not."""
    return [one for one in other.sources if one not in config.sources]
