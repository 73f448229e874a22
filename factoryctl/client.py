"""One connection to the daemon: calls go out, answers come in, still encoded.

It blocks, and it starts fast: neither the wire's types nor trio are needed for it.
"""

import json
import socket
import struct
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress

from factoryctl.errors import (
    BadUsage,
    Failure,
    Garbled,
    HungUp,
    NotAllowed,
    NotAnswering,
    NotRunning,
    Refused,
)
from factoryd.wire.framing import END, ERROR_EXITS

ANSWER_S = 10.0
"""What does not stream is answered within this time, or the daemon does not answer."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""What is larger than this is no answer."""

LOOK = "its log says what it does (standard error, or `journalctl -t factoryd`)"

_PLAIN_START = '{"parameters":'
_PLAIN_ENDS = {"}": False, ',"continues":true}': True}


class Answer:
    """One answer: its parameters as the JSON that came, and whether more will come."""

    def __init__(self, parameters: str, *, continues: bool) -> None:
        self.parameters = parameters
        self.continues = continues


class Connection:
    """An open connection; `path` is the socket it goes to."""

    def __init__(self, connected: socket.socket, path: str) -> None:
        self._socket = connected
        self._buffer = bytearray()
        self.path = path

    def call(self, request: bytes) -> Answer:
        """Send a request and return its one answer; raise `NotAnswering` when none comes in time.

        Raise `Refused` for the daemon's errors, `HungUp` and `Garbled` for what is no answer.
        """
        self._send(request)
        answer = self._receive(ANSWER_S)
        if answer is None:
            raise self.not_answering()
        return answer

    def stream(self, request: bytes, every_s: float) -> Iterator[Answer | None]:
        """Send a request and yield its answers up to the last, and None for each silent `every_s`.

        Raises as `call` does, but waits for as long as it is iterated.
        """
        self._send(request)
        while True:
            answer = self._receive(every_s)
            yield answer
            if answer is not None and not answer.continues:
                return

    def wait_closed(self, every_s: float) -> Iterator[None]:
        """Return once the daemon has closed the connection, yielding at each silent `every_s`."""
        self._socket.settimeout(every_s)
        while True:
            try:
                if not self._socket.recv(65536):
                    return
            except TimeoutError:
                yield
            except OSError:
                return

    def not_answering(self) -> NotAnswering:
        """Return the error for a daemon that listens here and keeps silent."""
        return NotAnswering(f"factoryd at {self.path} does not answer: {LOOK}")

    def _send(self, request: bytes) -> None:
        self._socket.settimeout(ANSWER_S)
        try:
            self._socket.sendall(request)
        except TimeoutError:
            raise self.not_answering() from None
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have said why before it hung up
        except OSError as error:
            raise self._hung_up() from error

    def _receive(self, within_s: float) -> Answer | None:
        """Return the next answer, None when it is not complete in time."""
        deadline = time.monotonic() + within_s
        searched = 0
        while (end := self._buffer.find(END, searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_ANSWER_BYTES:
                raise Garbled(f"factoryd sent an answer of over {MAX_ANSWER_BYTES} bytes")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._socket.settimeout(left_s)
            try:
                received = self._socket.recv(1 << 20)
            except TimeoutError:
                return None
            except OSError as error:
                raise self._hung_up() from error
            if not received:
                raise self._hung_up()
            self._buffer += received
        message = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return read_answer(message)

    def _hung_up(self) -> HungUp:
        return HungUp(
            f"factoryd closed the connection before its answer was complete: {LOOK}, and try again"
        )


@contextmanager
def connect(paths: Sequence[str]) -> Generator[Connection]:
    """Open a connection to the first socket where somebody listens, closed on leaving.

    Raise `NotRunning` when nobody does at any.
    """
    for path in paths:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            if _listens(client, path):
                yield Connection(client, path)
                return
    looked = " and ".join(paths)
    raise NotRunning(
        f"no factoryd is running (looked for {looked}): start it with `factoryd run`, "
        "or say where it is with --socket"
    )


def ask(paths: Sequence[str], question: bytes) -> Answer:
    """Return the answer to a question that changes nothing, over a connection of its own.

    A daemon that ends closes what it has not answered; then the next one is asked, which systemd
    may have callers wait for. Raises as `connect` and `Connection.call` do.
    """
    with suppress(HungUp), connect(paths) as connection:
        return connection.call(question)
    with connect(paths) as connection:
        return connection.call(question)


def _listens(client: socket.socket, path: str) -> bool:
    # A blocking connect waits while the daemon's queue of callers is full, for as long as this.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_S), 0))
    try:
        client.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return False
    except BlockingIOError:
        raise NotAnswering(f"factoryd at {path} accepts no callers: {LOOK}") from None
    except PermissionError:
        raise NotAllowed(
            f"{path}: you may not connect there: ask as root or as a user that [access] of the "
            "configuration names"
        ) from None
    except (OSError, ValueError) as error:
        raise BadUsage(f"{path}: is no control socket ({error})") from error
    return True


def read_answer(message: bytes) -> Answer:
    """Return the answer in a message (without its end); raise `Refused` for an error.

    Parameters that came as the daemon writes them are cut out of the message, not encoded again.
    """
    try:
        return _cut_out(message.decode())
    except (ValueError, RecursionError) as error:
        raise Garbled(
            f"what listens on the socket does not speak factoryd's language ({error}): "
            "check --socket"
        ) from None


def _cut_out(text: str) -> Answer:
    if text.startswith(_PLAIN_START + "{"):
        _, end = json.JSONDecoder().raw_decode(text, len(_PLAIN_START))
        continues = _PLAIN_ENDS.get(text[end:])
        if continues is not None:
            return Answer(text[len(_PLAIN_START) : end], continues=continues)
    reply = json.loads(text)
    error = _object(reply).get("error")
    parameters = _object(reply.get("parameters", {}))
    if error is not None:
        raise _refusal(str(error), parameters)
    return Answer(json.dumps(parameters), continues=reply.get("continues") is True)


def _object(value: dict[str, object]) -> dict[str, object]:
    """Return what should be a JSON object, checked."""
    if type(value) is not dict:
        raise ValueError("an object is missing")
    return value


def _refusal(error: str, parameters: dict[str, object]) -> Failure:
    reason = parameters.get("reason")
    if not isinstance(reason, str):
        details = ", ".join(f"{name} {value}" for name, value in parameters.items())
        reason = f"factoryd answered {error}" + (f" ({details})" if details else "")
    return Refused(error, reason, ERROR_EXITS.get(error, 1))
