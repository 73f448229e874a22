"""The description of the control interface in Varlink's own language, made from the wire's types.

The language is that of https://varlink.org/Interface-Definition.
"""

import msgspec
from msgspec import inspect

from factoryd.wire.messages import INTERFACE, METHODS, SERVICE_INTERFACE, Reason

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
