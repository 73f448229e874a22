"""The configuration in force, in the one place where it is kept and replaced."""

from collections.abc import Callable

import trio

from factoryd.core.config import Config


class Settings:
    """Asked at the moment of deciding, so that nobody holds on to what is no longer in force."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.mistakes: tuple[str, ...] = ()
        """Why the file was refused when it was read last; `config` is older than it then."""
        self._replaced = trio.Event()

    def replace(self, config: Config) -> None:
        """Have another configuration be in force from now on."""
        self.config, self.mistakes = config, ()
        replaced, self._replaced = self._replaced, trio.Event()
        replaced.set()

    async def wait_replaced(self) -> None:
        """Return once another configuration is in force."""
        await self._replaced.wait()

    async def sleep(self, length_s: Callable[[Config], float]) -> None:
        """Sleep for as long as the configuration says, the newest one if it is replaced."""
        began = trio.current_time()
        while trio.current_time() < (until := began + length_s(self.config)):
            with trio.move_on_at(until):
                await self._replaced.wait()
