"""The same with trio: a task for each program, which starts it again whenever it ends.

Usage and requests are those of `popen_loop.py`.
"""

import json
import os
import signal
import subprocess
import sys

import trio

GRACE_S = 2.0


class Loop:
    """All programs, each the business of one task."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._agents: dict[str, trio.Process] = {}

    def start(self, scripts: list[str]) -> int:
        """Have programs started."""
        for script in scripts:
            self._nursery.start_soon(self._keep, script)
        return len(scripts)

    async def _keep(self, script: str) -> None:
        stopped = False
        while not stopped:
            process = await trio.lowlevel.open_process(
                ["sh", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._agents[script] = process
            await process.wait()
            stopped = self._agents.get(script) is not process

    async def stop(self, scripts: list[str]) -> int:
        """End process groups, all at once."""
        ending = [self._agents.pop(script) for script in scripts]
        async with trio.open_nursery() as nursery:
            for process in ending:
                nursery.start_soon(self._end, process)
        return len(ending)

    async def _end(self, process: trio.Process) -> None:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
        with trio.move_on_after(GRACE_S):
            await process.wait()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def answer(self, request: dict[str, object]) -> int:
        """Do what a request asks for."""
        match request:
            case {"do": "start", "scripts": list(scripts)}:
                return self.start(scripts)
            case {"do": "stop", "script": str(script)}:
                return await self.stop([script])
            case {"do": "stop-all"}:
                return await self.stop(list(self._agents))
            case _:
                return sum(agent.returncode is None for agent in self._agents.values())

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the lines of a connection."""
        rest = b""
        async with stream:
            async for chunk in stream:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    await stream.send_all(b"%d\n" % await self.answer(json.loads(line)))


async def main() -> None:
    """Serve until killed."""
    path, *scripts = sys.argv[1:]
    async with trio.open_nursery() as nursery:
        loop = Loop(nursery)
        loop.start(scripts)
        listening = trio.socket.socket(trio.socket.AF_UNIX)
        await listening.bind(path)
        listening.listen()
        await trio.serve_listeners(loop.serve, [trio.SocketListener(listening)])


if __name__ == "__main__":
    trio.run(main)
