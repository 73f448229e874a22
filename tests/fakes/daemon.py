"""A daemon's control socket that says what a test tells it to."""

from enum import Enum
from pathlib import Path

import msgspec
import trio

from factoryd.wire.framing import END, INTERFACE, SERVICE_INTERFACE
from factoryd.wire.messages import Call, Reason, decode_call, encode_error


class Act(Enum):
    """What a scripted daemon does besides sending bytes."""

    HANG = "hang"
    CLOSE = "close"


Step = bytes | Act | trio.Event
"""Send this, do that, or wait for the event."""


class ScriptedDaemon:
    """Listens on a real socket, notes every call, and answers each by its method's script.

    A method without a script is not found. A call that comes again is answered by the next script
    for its method, and by the last for ever.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.calls: list[Call] = []
        self.hung_up = 0
        self._scripts: dict[str, list[tuple[Step, ...]]] = {}

    def when(self, method: str, *steps: Step) -> None:
        """Add a script for a method."""
        self._scripts.setdefault(method, []).append(steps)

    def script(self, method: str, *steps: Step) -> None:
        """Replace a method's scripts by this one."""
        self._scripts[method] = [steps]

    def parameters(self, number: int = -1) -> dict[str, object]:
        """Return the parameters of a call."""
        return msgspec.json.decode(self.calls[number].parameters, type=dict[str, object])

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        with trio.socket.socket(trio.socket.AF_UNIX) as listening:
            await listening.bind(str(self.socket))
            listening.listen()
            async with trio.open_nursery() as callers:
                task_status.started()
                while True:
                    accepted, _ = await listening.accept()
                    callers.start_soon(self._attend, trio.SocketStream(accepted))

    async def _attend(self, stream: trio.SocketStream) -> None:
        buffer = bytearray()
        try:
            async with stream:
                async for received in stream:
                    buffer += received
                    while END in buffer:
                        message, _, rest = bytes(buffer).partition(END)
                        buffer = bytearray(rest)
                        if not await self._answer(stream, message):
                            return
        except trio.BrokenResourceError:
            pass
        finally:
            self.hung_up += 1

    async def _answer(self, stream: trio.SocketStream, message: bytes) -> bool:
        call = decode_call(message)
        self.calls.append(call)
        scripts = self._scripts.get(call.method.removeprefix(f"{INTERFACE}."))
        if not scripts:
            unknown = Reason(reason=f"{call.method} is unknown")
            await stream.send_all(encode_error(f"{SERVICE_INTERFACE}.MethodNotFound", unknown))
            return True
        for step in scripts.pop(0) if len(scripts) > 1 else scripts[0]:
            match step:
                case bytes():
                    await stream.send_all(step)
                case trio.Event():
                    await step.wait()
                case Act.HANG:
                    await trio.sleep_forever()
                case Act.CLOSE:
                    return False
        return True
