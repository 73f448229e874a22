"""How factoryctl reads what comes over the socket."""

import json
import socket

import msgspec
import pytest

from factoryctl import client
from factoryctl.arguments import parse
from factoryctl.client import connect, read_answer
from factoryctl.errors import BadUsage, Garbled, HungUp, NotAnswering, NotRunning, Refused
from factoryd.core.units import parse_duration
from factoryd.wire.answers import ShutdownReply
from factoryd.wire.framing import ERROR_EXITS, INTERFACE, request
from factoryd.wire.messages import (
    METHODS,
    Nothing,
    Reason,
    StatusCall,
    decode_call,
    encode_call,
    encode_error,
    encode_reply,
)


def test_a_request_made_without_the_types_is_the_one_made_with_them():
    calls = {
        "Status": StatusCall(targets=("AR-1", 'q"\u2028')),
        "Watch": StatusCall(),
        "Health": Nothing(),
    }
    for name, parameters in calls.items():
        for more in (False, True):
            typed = encode_call(name, parameters, more=more)
            raw = msgspec.json.encode(parameters).decode()
            plain = request(name, raw, more=more)
            assert plain.endswith(b"}\0")
            assert decode_call(plain[:-1]) == decode_call(typed[:-1])
    assert set(calls) <= set(METHODS)


@pytest.mark.parametrize("continues", [False, True])
def test_parameters_are_passed_on_byte_for_byte(continues):
    message = encode_reply(ShutdownReply(pid=12), continues=continues)[:-1]
    answer = read_answer(message)
    assert answer.parameters == '{"pid":12}'
    assert answer.continues is continues


@pytest.mark.parametrize(
    ("message", "parameters", "continues"),
    [
        ('{"parameters": {"a": 1.50}}', {"a": 1.5}, False),
        ('{"continues":true,"parameters":{"a":"}}"}}', {"a": "}}"}, True),
        ('{"parameters":{"a":1},"continues":false}', {"a": 1}, False),
        ('{"parameters":{"a":"\\"}"},"continues":true,"new":{}}', {"a": '"}'}, True),
        ("{}", {}, False),
        ('{"continues":true}', {}, True),
    ],
)
def test_another_encoder_may_write_the_same_otherwise(message, parameters, continues):
    answer = read_answer(message.encode())
    assert json.loads(answer.parameters) == parameters
    assert answer.continues is continues


@pytest.mark.parametrize(("error", "status"), ERROR_EXITS.items())
def test_an_error_has_the_exit_status_of_the_wires_table(error, status):
    with pytest.raises(Refused, match="no such thing") as caught:
        read_answer(encode_error(error, Reason(reason="no such thing"))[:-1])
    assert (caught.value.exit_status, caught.value.error) == (status, error)


def test_an_error_without_a_reason_is_told_by_its_name_and_details():
    for message in (
        '{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"a.B"}}',
        '{"parameters":{"method":"a.B"},"error":"org.varlink.service.MethodNotFound"}',
    ):
        with pytest.raises(Refused, match=r"org\.varlink\.service\.MethodNotFound .*method a\.B"):
            read_answer(message.encode())
    with pytest.raises(Refused) as caught:
        read_answer(f'{{"error":"{INTERFACE}.Unheard"}}'.encode())
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"7",
        b'{"parameters":[]}',
        b'{"parameters":7}',
        b'{"parameters":{"a":1}',
        b'{"parameters":{"a":1}} x',
        b'{"parameters":{"a":1},"continues":true',
        b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_said_to_be_none(message):
    with pytest.raises(Garbled, match="does not speak"):
        read_answer(message)


@pytest.fixture
def listening(tmp_path):
    """Yield a socket that listens, and its path; nobody accepts."""
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        yield listener, path


def test_a_daemon_that_is_silent_is_given_up_in_time(listening, monkeypatch):
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    _, path = listening
    with connect([path]) as connection, pytest.raises(NotAnswering, match="does not answer"):
        connection.call(request("Health", "{}"))


def test_half_an_answer_is_no_answer(listening, monkeypatch):
    monkeypatch.setattr(client, "ANSWER_S", 0.2)
    listener, path = listening
    with connect([path]) as connection:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b'{"parameters":{')
            with pytest.raises(NotAnswering):
                connection.call(request("Health", "{}"))


def test_a_daemon_that_accepts_no_callers_is_given_up_in_time(listening, monkeypatch):
    monkeypatch.setattr(client, "ANSWER_S", 1.0)
    _, path = listening
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        with pytest.raises(NotAnswering, match="accepts no callers"), connect([path]):
            pass


def test_an_answer_without_end_is_cut_off(listening, monkeypatch):
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 10_000)
    listener, path = listening
    with connect([path]) as connection:
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(b" " * 20_000)
            with pytest.raises(Garbled, match="over 10000 bytes"):
                connection.call(request("Health", "{}"))


def test_what_the_daemon_said_before_it_hung_up_is_heard(listening):
    listener, path = listening
    with connect([path]) as connection:
        accepted, _ = listener.accept()
        accepted.sendall(encode_error(f"{INTERFACE}.Refused", Reason(reason="too busy")))
        accepted.close()
        with pytest.raises(Refused, match="too busy"):
            connection.call(request("Health", "{}"))


def test_a_connection_closed_in_the_middle_of_an_answer_is_told(listening):
    listener, path = listening
    with connect([path]) as connection:
        accepted, _ = listener.accept()
        accepted.sendall(b'{"parameters"')
        accepted.shutdown(socket.SHUT_WR)
        with accepted, pytest.raises(HungUp, match="closed the connection"):
            connection.call(request("Health", "{}"))


def test_answers_that_come_in_one_piece_are_told_apart(listening):
    listener, path = listening
    with connect([path]) as connection:
        accepted, _ = listener.accept()
        with accepted:
            first, last = ShutdownReply(pid=1), ShutdownReply(pid=2)
            accepted.sendall(encode_reply(first, continues=True) + encode_reply(last) + b"later")
            answers = list(connection.stream(request("Watch", "{}", more=True), 5.0))
    assert [answer.parameters for answer in answers if answer] == ['{"pid":1}', '{"pid":2}']


def test_silence_in_a_stream_is_told_at_each_interval(listening):
    listener, path = listening
    with connect([path]) as connection:
        accepted, _ = listener.accept()
        with accepted:
            stream = connection.stream(request("Watch", "{}", more=True), 0.01)
            assert [next(stream), next(stream)] == [None, None]
            accepted.sendall(encode_reply(ShutdownReply(pid=2)))
            assert [answer.parameters for answer in stream if answer] == ['{"pid":2}']


def test_the_next_place_is_tried_where_nobody_listens(listening, tmp_path):
    _, path = listening
    left_behind = tmp_path / "old.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left_behind))
    nowhere = tmp_path / "nowhere" / "control.sock"
    with connect([str(nowhere), str(left_behind), path]) as connection:
        assert connection.path == path
    with pytest.raises(NotRunning, match=r"nowhere.* and .*old\.sock.*factoryd run"):
        with connect([str(nowhere), str(left_behind)]):
            pass


def test_a_path_that_can_be_no_socket_is_wrong_usage():
    with pytest.raises(BadUsage, match="is no control socket"), connect(["/x" * 100]):
        pass


@pytest.mark.parametrize("text", ["0s", "250ms", "30s", "5m", "2h", "1.5s", "10", "-1s", "1d", ""])
def test_a_grace_is_read_as_the_configuration_reads_durations(text, capsys):
    try:
        expected = parse_duration(text)
    except ValueError:
        with pytest.raises(SystemExit) as caught:
            parse(["kill", "AR-1", f"--grace={text}"])
        assert caught.value.code == 2
        assert "write 250ms, 30s, 5m or 2h" in capsys.readouterr().err
    else:
        assert parse(["kill", "AR-1", f"--grace={text}"]).grace == pytest.approx(expected)
