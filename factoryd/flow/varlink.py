"""What every Varlink service has: its description, made from the wire's types, and its errors.

The descriptions are in the language of https://varlink.org/Interface-Definition.
"""

import re
from typing import Protocol, TypeVar

import msgspec
from msgspec import inspect

from factoryd import __version__
from factoryd.wire import framing
from factoryd.wire.messages import INTERFACE, METHODS, SERVICE_INTERFACE, Reason

T = TypeVar("T")


class Say(Protocol):
    """Takes the answers to one call, in order."""

    async def __call__(self, answer: msgspec.Struct, *, continues: bool = False) -> None:
        """Give the caller one answer; `continues`: more will follow. Raises when it is gone."""
        ...


VENDOR = "factoryd"
PRODUCT = "A supervisor daemon for fleets of coding agents"

ERRORS = ("NoSuchTarget", "Refused", "BadUsage", "Unavailable")
"""The interface's own errors; each carries a `Reason`."""

SERVICE_DESCRIPTION = f"""\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface {SERVICE_INTERFACE}

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
"""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """What `InvalidParameter` carries."""

    parameter: str


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """What `MethodNotFound` carries: the full name."""

    method: str


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """What `InterfaceNotFound` carries, and what is asked for a description."""

    interface: str


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str = VENDOR
    product: str = PRODUCT
    version: str = __version__
    url: str = ""
    interfaces: tuple[str, ...] = (SERVICE_INTERFACE, INTERFACE)


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    description: str


class WireError(Exception):
    """An error of the Varlink service interface, with its parameters."""

    def __init__(self, name: str, parameters: msgspec.Struct) -> None:
        super().__init__(name)
        self.name = f"{SERVICE_INTERFACE}.{name}"
        self.parameters = parameters


_members: msgspec.json.Decoder[dict[str, msgspec.Raw] | None] = msgspec.json.Decoder(
    dict[str, msgspec.Raw] | None
)
_PLACE = re.compile(r"`\$\.([^`.\[]+)[^`]*`\Z|field `([^`]+)`\Z")


def read_parameters(raw: msgspec.Raw, wanted: type[T]) -> T:
    """Return a call's parameters; one that is null, as one that is missing, has its default.

    Raise `WireError` with the name of the parameter that is wrong.
    """
    try:
        return msgspec.json.decode(raw, type=wanted)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        pass
    try:
        given = _members.decode(raw) or {}
        kept = {name: value for name, value in given.items() if bytes(value) != b"null"}
        return msgspec.json.decode(msgspec.json.encode(kept), type=wanted)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        name = (place[1] or place[2]) if place else "parameters"
        raise WireError("InvalidParameter", Parameter(parameter=name)) from None


def describe(method: str, parameters: msgspec.Raw) -> msgspec.Struct:
    """Return the answer to a call of the service interface; `method` is its full name."""
    match method.removeprefix(f"{SERVICE_INTERFACE}."):
        case "GetInfo":
            return _Info()
        case "GetInterfaceDescription":
            wanted = read_parameters(parameters, Interface)
            match wanted.interface:
                case framing.SERVICE_INTERFACE:
                    return _Description(description=SERVICE_DESCRIPTION)
                case framing.INTERFACE:
                    return _Description(description=describe_interface())
                case _:
                    raise WireError("InterfaceNotFound", wanted)
        case _:
            raise WireError("MethodNotFound", Method(method=method))


def describe_interface() -> str:
    """Return the description of `io.factoryd.Control`: every type, method and error."""
    seen: dict[str, str] = {}
    methods: list[str] = []
    for name, spec in METHODS.items():
        call, reply = _fields(spec.call, seen), _fields(spec.reply, seen)
        methods.append(f"# {spec.doc}\nmethod {name}{call} -> {reply}\n")
    errors = [f"error {name} {_fields(Reason, seen)}\n" for name in ERRORS]
    head = f"# Watch and steer factoryd.\ninterface {INTERFACE}\n"
    return "\n".join([head, *seen.values(), *methods, *errors])


def _fields(struct: type[msgspec.Struct], seen: dict[str, str]) -> str:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    inner = ", ".join(
        f"{field.encode_name}: {'' if field.required else _optional(field.type)}"
        f"{_name(field.type, seen)}"
        for field in info.fields
    )
    return f"({inner})"


def _optional(kind: inspect.Type) -> str:
    return "" if isinstance(kind, inspect.UnionType) and kind.includes_none else "?"


def _name(kind: inspect.Type, seen: dict[str, str]) -> str:
    match kind:
        case inspect.UnionType(types=(one, inspect.NoneType())):
            return f"?{_name(one, seen)}"
        case inspect.VarTupleType(item_type=item):
            return f"[]{_name(item, seen)}"
        case inspect.StructType(cls=cls):
            if cls.__name__ not in seen:
                text = _fields(cls, seen)
                doc = (cls.__doc__ or "").split("\n")[0]
                seen[cls.__name__] = f"# {doc}\ntype {cls.__name__} {text}\n"
            return cls.__name__
        case _:
            return _PLAIN[type(kind)]


_PLAIN: dict[type[inspect.Type], str] = {
    inspect.StrType: "string",
    inspect.BoolType: "bool",
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.RawType: "object",
}
