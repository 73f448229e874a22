"""The description of the interface, and what becomes of the parameters of a call."""

import msgspec
import pytest

from factoryd.core.errors import (
    AlreadyRunning,
    BadUsage,
    ConfigInvalid,
    FactoryError,
    LedgerUnavailable,
    NoSuchTarget,
    SourceFailed,
)
from factoryd.flow.methods import error_name
from factoryd.flow.varlink import WireError, describe, describe_interface, read_parameters
from factoryd.wire.framing import ERROR_EXITS, INTERFACE, SERVICE_INTERFACE
from factoryd.wire.messages import EventsCall, KillCall, LogsCall, StatusCall, SubmitCall


def read(text, wanted):
    return read_parameters(msgspec.Raw(text), wanted)


def test_an_interface_is_described_in_varlinks_own_language():
    lines = describe_interface().splitlines()
    assert lines[1] == f"interface {INTERFACE}"
    assert "method Health() -> (state: string, pid: int, degraded: []string, " in "\n".join(lines)
    assert (
        "method Logs(target: string, run: ?string, lines: ?int, follow: ?bool) -> "
        "(agent: string, run: string, lines: []LineView)" in lines
    )
    assert "type LineView (offset: int, text: string)" in lines
    assert "error NoSuchTarget (reason: string)" in lines


def test_a_type_is_described_once():
    types = [line for line in describe_interface().splitlines() if line.startswith("type ")]
    assert len(types) == len(set(types))


@pytest.mark.parametrize(
    ("text", "wanted", "result"),
    [
        (b"{}", StatusCall, StatusCall()),
        (b"null", StatusCall, StatusCall()),
        (b' {"targets" : ["A"] } ', StatusCall, StatusCall(targets=("A",))),
        (b'{"targets":null}', StatusCall, StatusCall()),
        (b'{"target":"A","lines":null,"run":null}', LogsCall, LogsCall(target="A")),
        (b'{"grace_s":5}', KillCall, KillCall(grace_s=5.0)),
        (b'{"newer":{"deep":[1]},"since":3}', EventsCall, EventsCall(since=3)),
    ],
)
def test_parameters_are_read_as_any_client_writes_them(text, wanted, result):
    assert read(text, wanted) == result


@pytest.mark.parametrize(
    ("text", "wanted", "culprit"),
    [
        (b'{"target":"A","lines":"x"}', LogsCall, "lines"),
        (b'{"target":"A","lines":1.5}', LogsCall, "lines"),
        (b"{}", LogsCall, "target"),
        (b'{"target":null}', LogsCall, "target"),
        (b'{"targets":["A",null]}', StatusCall, "targets"),
        (b'{"targets":{"A":1}}', StatusCall, "targets"),
        (b'{"grace_s":1e999}', KillCall, "grace_s"),
        (b"[]", StatusCall, "parameters"),
        (b'"text"', StatusCall, "parameters"),
        (b'{"text":"\xff"}', SubmitCall, "parameters"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", StatusCall, "parameters"),
    ],
)
def test_a_wrong_parameter_is_named(text, wanted, culprit):
    with pytest.raises(WireError) as caught:
        read(text, wanted)
    assert caught.value.name == f"{SERVICE_INTERFACE}.InvalidParameter"
    assert msgspec.structs.asdict(caught.value.parameters) == {"parameter": culprit}


def ask(method, parameters=b"{}"):
    return describe(f"{SERVICE_INTERFACE}.{method}", msgspec.Raw(parameters))


def test_the_service_interface_describes_itself_and_ours():
    assert ask("GetInfo").interfaces == (SERVICE_INTERFACE, INTERFACE)
    for interface in (SERVICE_INTERFACE, INTERFACE):
        asked = msgspec.json.encode({"interface": interface})
        assert f"\ninterface {interface}\n" in ask("GetInterfaceDescription", asked).description


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("Nope", b"{}", "MethodNotFound"),
        ("GetInterfaceDescription", b'{"interface":"org.example"}', "InterfaceNotFound"),
        ("GetInterfaceDescription", b"{}", "InvalidParameter"),
    ],
)
def test_what_the_service_interface_does_not_have_is_an_error(method, parameters, error):
    with pytest.raises(WireError) as caught:
        ask(method, parameters)
    assert caught.value.name == f"{SERVICE_INTERFACE}.{error}"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NoSuchTarget(""), "NoSuchTarget"),
        (BadUsage(""), "BadUsage"),
        (ConfigInvalid(("",)), "BadUsage"),
        (LedgerUnavailable(""), "Unavailable"),
        (SourceFailed(""), "Unavailable"),
        (AlreadyRunning(""), "Refused"),
        (FactoryError(""), "Refused"),
    ],
)
def test_every_error_has_a_name_on_the_wire_with_its_own_exit_status(error, name):
    assert error_name(error) == f"{INTERFACE}.{name}"
    assert ERROR_EXITS[error_name(error)] == error.exit_status
