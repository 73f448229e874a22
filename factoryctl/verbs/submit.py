"""`submit`: puts issues into a source, each on its own."""

import os
import sys
from argparse import Namespace

import msgspec

from factoryctl.client import connect
from factoryctl.errors import Failure, Refused
from factoryctl.output import answer, printable, say
from factoryctl.typed import call
from factoryd.wire.answers import SubmitReply
from factoryd.wire.framing import ERROR_EXITS, MAX_REQUEST_BYTES, SERVICE_INTERFACE
from factoryd.wire.messages import SubmitCall, encode_call

_DENIED = ERROR_EXITS[f"{SERVICE_INTERFACE}.PermissionDenied"]


def run(options: Namespace) -> int:
    """Submit every file, report each; 1 if any was not taken."""
    failed = 0
    for file in options.files:
        try:
            reply = _submit(file, options.sockets)
        except Refused as refused:
            if refused.exit_status == _DENIED:
                raise
            failed += 1
            say(f"{file}: {refused}")
        except _Unreadable as unreadable:
            failed += 1
            say(f"{file}: {unreadable}")
        else:
            _report(file, reply, as_json=options.json)
    return 1 if failed else 0


class _Unreadable(Failure):
    """A file that cannot be sent."""


class _Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` says of an issue that was taken."""

    file: str
    key: str
    source: str


def _submit(file: str, sockets: list[str]) -> SubmitReply:
    name = "" if file == "-" else os.path.basename(file)  # noqa: PTH119
    submit = SubmitCall(text=_read(file), name=name)
    size = len(encode_call("Submit", submit)) - 1
    if size > MAX_REQUEST_BYTES:
        raise _too_large()
    with connect(sockets) as connection:
        return call(connection, "Submit", submit, SubmitReply)


def _read(file: str) -> str:
    try:
        if file == "-":
            raw = sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
        else:
            with open(file, "rb") as opened:  # noqa: PTH123
                raw = opened.read(MAX_REQUEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise _Unreadable(f"cannot be read ({reason})") from None
    if len(raw) > MAX_REQUEST_BYTES:
        raise _too_large()
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _Unreadable(f"is not UTF-8 text (byte {error.start}): is it an issue?") from None


def _too_large() -> _Unreadable:
    return _Unreadable(
        f"is too large: an issue may have {MAX_REQUEST_BYTES} bytes, as it is sent: shorten it"
    )


def _report(file: str, reply: SubmitReply, *, as_json: bool) -> None:
    if as_json:
        taken = _Submitted(file=file, key=reply.key, source=reply.source)
        answer(msgspec.json.encode(taken).decode())
    else:
        answer(printable(f"{reply.key}  {reply.source}  {file}"))
