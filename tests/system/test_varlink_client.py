"""A Varlink client that was not written here, against a real daemon: `varlink` from PyPI."""

import json
import sys
from functools import partial

import msgspec
import pytest
import trio
import varlink  # type: ignore[import-untyped]
from msgspec import inspect
from varlink import scanner

from factoryd import __version__
from factoryd.flow.varlink import ERRORS, SERVICE_DESCRIPTION, describe_interface
from factoryd.wire import answers, messages
from factoryd.wire.framing import ERROR_EXITS, INTERFACE, SERVICE_INTERFACE
from factoryd.wire.messages import METHODS, Reason
from tests.system.daemons import a_daemon, play

pytestmark = pytest.mark.system


async def command(daemon, *arguments):
    done = await daemon.place.run(command=[sys.executable, "-m", "varlink.cli", *arguments])
    assert done.returncode == 0, done.stderr
    return done


def address(daemon):
    return f"unix:{daemon.place.socket}"


async def test_its_command_shows_what_this_is():
    async with a_daemon() as daemon:
        info = (await command(daemon, "info", address(daemon))).stdout
        text = (await command(daemon, "help", f"{address(daemon)}/{INTERFACE}")).stdout
    assert "Vendor: factoryd" in info
    assert f"Version: {__version__}" in info
    assert INTERFACE in info
    assert SERVICE_INTERFACE in info
    assert text.strip() == describe_interface().strip()


async def test_its_command_calls_methods_and_shows_streams_and_errors():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play())
        await daemon.wait_running("A-1")
        call = partial(command, daemon, "call")
        status = json.loads((await call(f"{address(daemon)}/{INTERFACE}.Status")).stdout)
        assert [issue["key"] for issue in status["issues"]] == ["A-1"]
        error = await call(f"{address(daemon)}/{INTERFACE}.Logs", '{"target": "A-9"}')
        assert "NoSuchTarget" in error.stderr
        kill = await call("-m", f"{address(daemon)}/{INTERFACE}.Kill", '{"targets": ["A-1"]}')
        decoder, text, replies = json.JSONDecoder(), kill.stdout.strip(), []
        while text:
            reply, end = decoder.raw_decode(text)
            replies.append(reply)
            text = text[end:].strip()
        assert [key for reply in replies for key in reply["ended"]] == ["A-1"]
        assert [one["emptied"] for reply in replies for one in reply["agents"]] == [True]


async def test_its_python_client_makes_every_call():
    def use(where):
        with varlink.Client.new_with_address(where) as client:
            with client.open(INTERFACE, namespaced=True) as factory:
                submitted = factory.Submit("---\nkey: A-1\ntitle: Sent\n---\necho up\n", "", None)
                assert submitted.key == "A-1"
                watched = factory.Watch(_more=True)
                while not any(one.state == "done" for one in next(watched).issues):
                    pass
            with client.open(INTERFACE, namespaced=True) as factory:
                assert factory.Health().state == "ok"
                assert factory.Status(["A-1"]).issues[0].agents[0].exit == 0
                assert factory.Logs(target="A-1").lines[0].text == "up"
                kinds: list[str] = []
                while "outcome-written" not in kinds:
                    kinds = [fact.kind for fact in factory.Events(issue="A-1").facts]
                assert "issue-done" in kinds
                assert factory.Kill(all=True).ended == []
                with pytest.raises(varlink.VarlinkError) as caught:
                    factory.Kill(["A-9"])
                assert caught.value.error() == f"{INTERFACE}.NoSuchTarget"
                return factory.Shutdown().pid

    async with a_daemon() as daemon:
        assert await trio.to_thread.run_sync(use, address(daemon)) == daemon.pid
        assert await daemon.wait() == 0


# ---------------------------------------------------------------- the description and the types


INTERFACES = {
    INTERFACE: scanner.Interface(describe_interface()),
    SERVICE_INTERFACE: scanner.Interface(SERVICE_DESCRIPTION),
}


def test_the_description_has_every_method_with_the_types_of_its_messages():
    parsed = INTERFACES[INTERFACE]
    described = {name for name, it in parsed.members.items() if isinstance(it, scanner._Method)}
    assert described == set(METHODS)
    for name, spec in METHODS.items():
        method = parsed.get_method(name)
        check_struct(method.in_type, spec.call, name)
        check_struct(method.out_type, spec.reply, name)
        assert spec.doc in method.doc


def test_the_description_has_every_struct_of_the_messages():
    structs = {
        name
        for name, it in [*vars(messages).items(), *vars(answers).items()]
        if isinstance(it, type) and issubclass(it, msgspec.Struct)
    }
    inlined = {spec.call.__name__ for spec in METHODS.values()}
    inlined |= {spec.reply.__name__ for spec in METHODS.values()}
    frame = {"Call", "Reply", "MethodSpec", "Reason"}
    parsed = INTERFACES[INTERFACE].members.items()
    described = {name for name, it in parsed if isinstance(it, scanner._Alias)}
    assert described == structs - inlined - frame


def test_the_description_has_every_error_that_can_come():
    for interface, parsed in INTERFACES.items():
        described = {
            f"{interface}.{name}"
            for name, it in parsed.members.items()
            if isinstance(it, scanner._Error)
        }
        ours = {name for name in ERROR_EXITS if name.rpartition(".")[0] == interface}
        assert described == ours
    for name in ERRORS:
        check_struct(INTERFACES[INTERFACE].members[name].type, Reason, name)


def check_struct(described, struct, where):
    """Check a described struct against the fields of a message."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    fields = {field.encode_name: field for field in info.fields}
    assert list(described.fields) == list(fields), where
    for name, field in fields.items():
        check(described.fields[name], field.type, f"{where}.{name}", optional=not field.required)


def check(described, kind, where, *, optional=False):
    """Check a described type against a message's."""
    if isinstance(kind, inspect.UnionType):
        kind, none = kind.types
        assert isinstance(none, inspect.NoneType), where
        optional = True
    assert isinstance(described, scanner._Maybe) is optional, where
    if optional:
        described = described.element_type
    match kind:
        case inspect.VarTupleType(item_type=item):
            assert isinstance(described, scanner._Array), where
            check(described.element_type, item, f"{where}[]")
        case inspect.StructType(cls=struct):
            assert described.name == struct.__name__, where
            alias = INTERFACES[INTERFACE].members[struct.__name__]
            check_struct(alias.type, struct, struct.__name__)
        case inspect.RawType():
            assert isinstance(described, scanner._Object), where
        case _:
            assert type(described) is PLAIN[type(kind)], where


PLAIN: dict[type[inspect.Type], type] = {
    inspect.StrType: str,
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
}
