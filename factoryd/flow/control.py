"""The control socket: takes Varlink calls, checks who asks, and bounds what anyone can cost."""

import logging
import socket
import struct
from contextlib import aclosing, nullcontext

import msgspec
import trio

from factoryd.core.access import Caller, Right, right_of
from factoryd.core.config import AccessConfig
from factoryd.core.errors import FactoryError
from factoryd.flow.methods import Methods, Parameter, WireError, error_name
from factoryd.flow.pulse import Pulse
from factoryd.ports import Accounts, ProcessTrees
from factoryd.wire.framing import END, INTERFACE, MAX_REQUEST_BYTES, SERVICE_INTERFACE
from factoryd.wire.messages import (
    METHODS,
    Call,
    Reason,
    decode_call,
    encode_error,
    encode_reply,
)

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
"""Beyond this the connection that has been idle longest is closed in favour of a new one."""

REQUEST_TIME_S = 10.0
"""From a request's first byte to its last."""

SEND_TIME_S = 30.0
"""For a reply to be taken by the caller."""

_CREDENTIALS = struct.Struct("3i")


class _BadRequest(Exception):
    """What came is not a call; the connection ends with the error named."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class _Caller:
    """One connection: messages in, messages out, each within its bounds."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.idle: trio.CancelScope | None = None
        """The wait for the next request, while there is none."""
        self._buffer = bytearray()

    async def next_message(self) -> bytes | None:
        """Return the next message without its end; None when the caller is done."""
        if not self._buffer and not await self._wait_for_bytes():
            return None
        searched = 0
        with trio.move_on_after(REQUEST_TIME_S):
            while (end := self._buffer.find(END, searched)) < 0:
                searched = len(self._buffer)
                if not await self._receive():
                    return None
            message = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            return message
        raise _BadRequest(f"a request not complete after {REQUEST_TIME_S:g} s")

    async def send(self, message: bytes) -> None:
        """Send a whole message; raise `trio.TooSlowError` when the caller does not take it."""
        with trio.fail_after(SEND_TIME_S):
            await self.stream.send_all(message)

    async def wait_gone(self) -> None:
        """Return once the caller has ended its side; keep what it sends until then."""
        while await self._receive():
            pass

    async def _wait_for_bytes(self) -> bool:
        with trio.CancelScope() as self.idle:
            await self._receive()
        self.idle = None
        return bool(self._buffer)

    async def _receive(self) -> bool:
        received = await self.stream.receive_some(65536)
        self._buffer += received
        if len(self._buffer) > MAX_REQUEST_BYTES:
            raise _BadRequest(f"a request of over {MAX_REQUEST_BYTES} bytes")
        return bool(received)


class ControlServer:
    """Serves callers; one caller's mistakes cost that caller's connection and nothing else."""

    def __init__(
        self,
        *,
        methods: Methods,
        access: AccessConfig,
        accounts: Accounts,
        trees: ProcessTrees,
        pulse: Pulse,
    ) -> None:
        self._methods = methods
        self._access = access
        self._accounts = accounts
        self._trees = trees
        self._pulse = pulse
        self._callers: list[_Caller] = []

    async def serve(
        self,
        listener: trio.SocketListener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept callers until cancelled. Too many open files or the like never ends this."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    logger.warning("a caller could not be accepted: %s", error)
                    await trio.sleep(0.1)
                    continue
                caller = _Caller(stream)
                self._make_room()
                self._callers.append(caller)
                nursery.start_soon(self._attend, caller)

    def _make_room(self) -> None:
        if len(self._callers) < MAX_CONNECTIONS:
            return
        for scope in (caller.idle for caller in self._callers):
            if scope is not None and not scope.cancel_called:
                scope.cancel(reason="too many connections, this one was idle longest")
                return

    async def _attend(self, caller: _Caller) -> None:
        try:
            async with caller.stream:
                await self._converse(caller)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            logger.debug("a caller went away in the middle of an answer")
        except* Exception:
            logger.exception("an error inside factoryd while answering a caller")
        finally:
            self._callers.remove(caller)

    async def _converse(self, caller: _Caller) -> None:
        try:
            if len(self._callers) > 2 * MAX_CONNECTIONS:
                return
            right = await self._right_of_caller(caller.stream)
            while (message := await caller.next_message()) is not None:
                await self._answer(caller, message, right)
        except _BadRequest as bad:
            error = f"{SERVICE_INTERFACE}.InvalidParameter"
            await caller.send(encode_error(error, Parameter(parameter=bad.parameter)))

    async def _answer(self, caller: _Caller, message: bytes, right: Right) -> None:
        try:
            call = decode_call(message)
        except msgspec.DecodeError as error:
            raise _BadRequest(f"not a Varlink call: {error}") from None
        interface, _, name = call.method.rpartition(".")
        spec = METHODS.get(name) if interface == INTERFACE else None
        needed = Right.READ if spec is None or spec.reads else Right.EVERYTHING
        if interface != SERVICE_INTERFACE and right < needed:
            denied = Reason(reason=_denial(name, right))
            await caller.send(encode_error(f"{SERVICE_INTERFACE}.PermissionDenied", denied))
        elif call.more:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, caller, nursery.cancel_scope)
                await self._run(caller, call, interface, name)
                nursery.cancel_scope.cancel(reason="answered")
        else:
            with self._pulse.busy() if spec is not None and not spec.streams else nullcontext():
                await self._run(caller, call, interface, name)

    async def _run(self, caller: _Caller, call: Call, interface: str, name: str) -> None:
        try:
            async with aclosing(self._methods.answer(interface, name, call)) as answers:
                async for answer, continues in answers:
                    if not call.oneway:
                        await caller.send(encode_reply(answer, continues=continues))
        except WireError as error:
            await caller.send(encode_error(error.name, error.parameters))
        except msgspec.ValidationError as error:
            raise _BadRequest(str(error)) from None
        except FactoryError as error:
            await caller.send(encode_error(error_name(error), Reason(reason=str(error))))

    async def _right_of_caller(self, stream: trio.SocketStream) -> Right:
        raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        user, groups = await trio.to_thread.run_sync(self._accounts.look_up, uid)
        inside = await trio.to_thread.run_sync(self._trees.owns, pid) if pid > 0 else None
        caller = Caller(pid=pid, uid=uid, user=user, groups=groups, in_agent=inside)
        return right_of(caller, self._access, self._accounts.own_uid)


async def _cancel_when_gone(caller: _Caller, streaming: trio.CancelScope) -> None:
    await caller.wait_gone()
    streaming.cancel(reason="the caller is gone")


def _denial(name: str, right: Right) -> str:
    if right is Right.READ:
        return f"{name} needs the rights of an operator: you may only read"
    return f"{name} needs the rights of an operator or reader: see [access] in the configuration"
