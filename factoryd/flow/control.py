"""The control socket: takes Varlink calls, checks who asks, and bounds what anyone can cost."""

import errno
import logging
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

import msgspec
import trio
from msgspec.structs import replace

from factoryd.core.access import Caller, Right, right_of
from factoryd.core.config import AccessConfig
from factoryd.core.errors import FactoryError
from factoryd.core.model import Data
from factoryd.flow.methods import error_name
from factoryd.flow.pulse import Pulse
from factoryd.flow.varlink import Parameter, Say, WireError
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

_CREDENTIALS = struct.Struct("3i")
_SO_PEERPIDFD = 77  # Linux 6.5, not yet in Python's socket module
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)


class Bounds(Data, frozen=True, kw_only=True):
    """What one caller, and all of them together, may cost."""

    request_bytes: int = MAX_REQUEST_BYTES
    """Size of a request, without its end."""
    request_time_s: float = 10.0
    """From a request's first byte to its last."""
    send_time_s: float = 30.0
    """For a reply to be taken by the caller."""
    look_up_time_s: float = 5.0
    """For the name service to say who a caller is; who is unknown by then has no name."""
    connections: int = 256
    """Beyond these, the one that has been idle longest is closed in favour of a new one."""
    connections_per_user: int = 128
    """The same for each user's callers that may not do everything, agents among them."""


class Service(Protocol):
    """What stands behind the socket. See `Methods`."""

    async def answer(self, interface: str, name: str, call: Call, say: Say) -> None:
        """Answer a call, once or more; raises `WireError` or a `FactoryError` for a refusal."""
        ...


class _BadRequest(Exception):
    """What came is not a call; the connection ends with the error named."""

    def __init__(self, parameter: str) -> None:
        super().__init__(parameter)
        self.parameter = parameter


class _Connection:
    """One caller's connection: messages in, messages out, each within its bounds."""

    def __init__(self, stream: trio.SocketStream, bounds: Bounds) -> None:
        self.stream = stream
        self.uid = -1
        self.caller: Caller | None = None
        """Who it is; nobody is asked about that before its first request."""
        self.right = Right.NOTHING
        """What it may do, as it was when that was looked at last."""
        self.idle: trio.CancelScope | None = None
        """The wait for the next request, while there is none."""
        self.idle_since = 0.0
        self._bounds = bounds
        self._buffer = bytearray()
        self._gone = False

    async def next_message(self) -> bytes | None:
        """Return the next message without its end; None when the caller is done."""
        if self._gone or (not self._buffer and not await self._wait_for_bytes()):
            return None
        with trio.move_on_after(self._bounds.request_time_s):
            return await self._complete_message()
        raise _BadRequest(f"a request not complete after {self._bounds.request_time_s:g} s")

    async def send(self, message: bytes) -> None:
        """Send a whole message; raise `trio.TooSlowError` when the caller does not take it."""
        with trio.fail_after(self._bounds.send_time_s):
            await self.stream.send_all(message)

    async def wait_gone(self) -> None:
        """Return once the caller has closed the connection, or sends more than it may meanwhile.

        A caller that has only ended its own side still reads. What is sent until then is kept, and
        is no longer looked at afterwards.
        """
        while len(self._buffer) <= self._bounds.request_bytes:
            if not await self._receive():
                await _wait_hung_up(self.stream.socket.fileno())
                break
        self._gone = True

    async def _complete_message(self) -> bytes | None:
        searched = 0
        while (end := self._buffer.find(END, searched)) < 0:
            searched = len(self._buffer)
            self._check_size(searched)
            if not await self._receive():
                return None
        self._check_size(end)
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return message

    async def _wait_for_bytes(self) -> bool:
        self.idle_since = trio.current_time()
        try:
            with trio.CancelScope() as self.idle:
                await self._receive()
        finally:
            self.idle = None
        return bool(self._buffer)

    async def _receive(self) -> bool:
        received = await self.stream.receive_some(65536)
        self._buffer += received
        return bool(received)

    def _check_size(self, size: int) -> None:
        if size > self._bounds.request_bytes:
            raise _BadRequest(f"a request of over {self._bounds.request_bytes} bytes")


class ControlServer:
    """Serves callers; one caller's mistakes cost that caller's connection and nothing else."""

    def __init__(
        self,
        *,
        methods: Service,
        access: Callable[[], AccessConfig],
        accounts: Accounts,
        trees: ProcessTrees,
        pulse: Pulse,
        bounds: Bounds | None = None,
    ) -> None:
        self._methods = methods
        self._access = access
        self._accounts = accounts
        self._trees = trees
        self._pulse = pulse
        self._bounds = bounds or Bounds()
        self._connections: list[_Connection] = []
        self._looking = trio.CapacityLimiter(2)
        self._looking_up = trio.CapacityLimiter(8)

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
                connection = _Connection(stream, self._bounds)
                _make_room(self._connections, self._bounds.connections)
                self._connections.append(connection)
                nursery.start_soon(self._attend, connection)

    async def _attend(self, connection: _Connection) -> None:
        """Serve one connection; the fence around it: an error in it is reported and ends it."""
        try:
            async with connection.stream:
                await self._converse(connection)
        except* _GONE:
            logger.debug("a caller went away in the middle of an answer")
        except* Exception:
            logger.exception("an error inside factoryd while answering a caller")
        finally:
            self._connections.remove(connection)

    async def _converse(self, connection: _Connection) -> None:
        if len(self._connections) > 2 * self._bounds.connections:
            return
        pid = self._read_credentials(connection)
        try:
            while self._may_stay(connection):
                message = await connection.next_message()
                if message is None:
                    return
                if connection.caller is None:
                    connection.caller = await self._find_caller(connection, pid)
                await self._answer(connection, _read_call(message))
            full = Reason(reason="your user has too many connections open: close some")
            await connection.send(encode_error(f"{INTERFACE}.Refused", full))
        except _BadRequest as bad:
            error = f"{SERVICE_INTERFACE}.InvalidParameter"
            await connection.send(encode_error(error, Parameter(parameter=bad.parameter)))

    def _may_stay(self, connection: _Connection) -> bool:
        if connection.right is Right.EVERYTHING:
            return True
        others = [
            other
            for other in self._connections
            if other.uid == connection.uid
            and other.right is not Right.EVERYTHING
            and other is not connection
        ]
        return _make_room(others, self._bounds.connections_per_user)

    async def _answer(self, connection: _Connection, call: Call) -> None:
        await trio.lowlevel.checkpoint()
        if call.oneway:
            await self._run(connection, replace(call, more=False))
        elif call.more:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, connection, nursery.cancel_scope)
                await self._run(connection, call)
                nursery.cancel_scope.cancel(reason="answered")
        else:
            await self._run(connection, call)

    async def _run(self, connection: _Connection, call: Call) -> None:
        """Give the answers to a call, or the error; a oneway call gets neither."""
        interface, _, name = call.method.rpartition(".")
        spec = METHODS.get(name) if interface == INTERFACE else None
        error: bytes | None = None
        with ExitStack() as working:
            if spec is not None and not spec.streams and not spec.lasts:
                working.enter_context(self._pulse.busy())

            async def say(answer: msgspec.Struct, *, continues: bool = False) -> None:
                working.close()  # how long the caller takes is not our silence
                if continues:  # who may do what may have been changed since the last answer
                    self._check_right(interface, name, connection)
                if not call.oneway:
                    await connection.send(encode_reply(answer, continues=continues))

            try:
                self._check_right(interface, name, connection)
                await self._methods.answer(interface, name, call, say)
            except _GONE:
                raise
            except Exception as failure:  # noqa: BLE001  the fence: the caller is told, the log says more
                error = _encode_failure(name, failure)
        if error is not None and not call.oneway:
            await connection.send(error)

    def _check_right(self, interface: str, name: str, connection: _Connection) -> None:
        """Raise `WireError` when the caller may not make this call."""
        assert connection.caller is not None
        right = right_of(connection.caller, self._access(), self._accounts.own_uid)
        connection.right = right
        spec = METHODS.get(name) if interface == INTERFACE else None
        needed = Right.READ if spec is None or spec.reads else Right.EVERYTHING
        if interface != SERVICE_INTERFACE and right < needed:
            raise WireError("PermissionDenied", Reason(reason=_denial(name, right)))

    def _read_credentials(self, connection: _Connection) -> int:
        """Note whose connection it is and return the process; its right is a guess until asked."""
        connected = connection.stream.socket
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int
        pid, connection.uid, _ = _CREDENTIALS.unpack(raw)
        trusted = connection.uid in {0, self._accounts.own_uid}
        connection.right = Right.EVERYTHING if trusted else Right.NOTHING
        return pid

    async def _find_caller(self, connection: _Connection, pid: int) -> Caller:
        connected, uid = connection.stream.socket, connection.uid
        user, groups = await self._look_up(uid)
        inside = await trio.to_thread.run_sync(
            self._is_inside, connected, pid, limiter=self._looking
        )
        return Caller(pid=pid, uid=uid, user=user, groups=groups, in_agent=inside)

    async def _look_up(self, uid: int) -> tuple[str | None, frozenset[str]]:
        """Ask the name service about a user who needs a name; it may hang, and costs no other."""
        if uid in {0, self._accounts.own_uid}:
            return None, frozenset()
        with trio.move_on_after(self._bounds.look_up_time_s):
            return await trio.to_thread.run_sync(
                self._accounts.look_up, uid, abandon_on_cancel=True, limiter=self._looking_up
            )
        logger.warning("the name service does not say who user %d is", uid)
        return None, frozenset()

    def _is_inside(self, connected: trio.socket.SocketType, pid: int) -> bool | None:
        """Say whether the caller is in an agent's tree; None when its process cannot be told.

        A process that ended meanwhile may have left its pid to another: that one is not asked for.
        """
        if pid <= 0:
            return None
        try:
            raw = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
        except OSError as error:
            return self._trees.owns(pid) if error.errno == errno.ENOPROTOOPT else None
        pidfd = int.from_bytes(raw, "little")
        try:
            inside = self._trees.owns(pid)
            return None if _is_readable(pidfd) else inside
        finally:
            os.close(pidfd)


def _make_room(connections: Sequence[_Connection], most: int) -> bool:
    """Close the one idle longest if there is no room for one more; False when none is idle."""
    if len(connections) < most:
        return True
    for connection in sorted(connections, key=lambda one: one.idle_since):
        scope = connection.idle
        if scope is not None and not scope.cancel_called:
            scope.cancel(reason="too many connections, this one was idle longest")
            return True
    return False


def _read_call(message: bytes) -> Call:
    try:
        return decode_call(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _BadRequest(f"not a Varlink call: {error}") from None


def _encode_failure(name: str, failure: Exception) -> bytes:
    match failure:
        case WireError():
            return encode_error(failure.name, failure.parameters)
        case FactoryError():
            return encode_error(error_name(failure), Reason(reason=str(failure)))
        case _:
            logger.error("an error inside factoryd while answering %s", name, exc_info=failure)
            broken = Reason(reason=f"{name}: an error inside factoryd; its log says more")
            return encode_error(f"{INTERFACE}.Refused", broken)


async def _cancel_when_gone(connection: _Connection, streaming: trio.CancelScope) -> None:
    await connection.wait_gone()
    streaming.cancel(reason="the caller is gone")


async def _wait_hung_up(descriptor: int) -> None:
    """Return once the other end is closed: an epoll that asks for nothing still tells that."""
    with select.epoll() as poll:
        poll.register(descriptor, 0)
        await trio.lowlevel.wait_readable(poll.fileno())


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _denial(name: str, right: Right) -> str:
    if right is Right.READ:
        return f"{name} needs the rights of an operator: you may only read"
    return f"{name} needs the rights of an operator or reader: see [access] in the configuration"
