"""Answers as the wire's types, for the verbs that look into them."""

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from factoryctl.client import ANSWER_S, Answer, Connection
from factoryctl.errors import Garbled
from factoryctl.offline import judge
from factoryd.wire.messages import encode_call

Reply = TypeVar("Reply", bound=msgspec.Struct)

TICK_S = 1.0
"""A stream that is silent says so this often."""


def call(
    connection: Connection, method: str, parameters: msgspec.Struct, kind: type[Reply]
) -> Reply:
    """Return the one answer to a call."""
    return read(connection.call(encode_call(method, parameters)), kind)


def stream(
    connection: Connection,
    method: str,
    parameters: msgspec.Struct,
    *,
    at_once: bool = False,
    more: bool = True,
) -> Iterator[Answer | None]:
    """Yield the answers to a call, and None once for each silent `TICK_S`.

    Without `more` there is one answer, which may take its time.

    Raise `NotAnswering` when the daemon is silent although its heartbeat says that it hangs, or
    although the method has its first answer `at_once`.
    """
    silent_s = 0.0
    overdue = at_once
    for answer in connection.stream(encode_call(method, parameters, more=more), TICK_S):
        if answer is not None:
            silent_s, overdue = 0.0, False
        else:
            silent_s += TICK_S
        yield answer
        if silent_s >= ANSWER_S:
            silent_s = 0.0
            if overdue:
                raise connection.not_answering()
            check_alive(connection)


def check_alive(connection: Connection) -> None:
    """Raise `NotAnswering` when the daemon's heartbeat says that it hangs or is dead."""
    verdict = judge(connection.path)
    if verdict is not None and not verdict.fresh:
        raise connection.not_answering()


def read(answer: Answer, kind: type[Reply]) -> Reply:
    """Return an answer's parameters as what they are; raise `Garbled` when they are not that."""
    try:
        return msgspec.json.decode(answer.parameters, type=kind)
    except msgspec.DecodeError as error:
        raise Garbled(
            f"factoryd's answer cannot be read ({error}): "
            "are factoryd and factoryctl of the same version?"
        ) from None
