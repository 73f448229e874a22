"""How a message looks on the socket: one JSON object, ended by a NUL byte.

This is Varlink's protocol (https://varlink.org/Wire-Protocol). Nothing is imported here, so that
a caller who needs no types pays for none.
"""

INTERFACE = "io.factoryd.Control"
SERVICE_INTERFACE = "org.varlink.service"
END = b"\0"
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""A request may be this large (bytes, without its end); an issue to submit must fit."""

ERROR_EXITS = {
    f"{INTERFACE}.Refused": 1,
    f"{INTERFACE}.Unavailable": 1,
    f"{INTERFACE}.BadUsage": 2,
    f"{INTERFACE}.NoSuchTarget": 4,
    f"{SERVICE_INTERFACE}.PermissionDenied": 6,
    f"{SERVICE_INTERFACE}.InvalidParameter": 2,
    f"{SERVICE_INTERFACE}.ExpectedMore": 2,
    f"{SERVICE_INTERFACE}.MethodNotFound": 1,
    f"{SERVICE_INTERFACE}.MethodNotImplemented": 1,
    f"{SERVICE_INTERFACE}.InterfaceNotFound": 1,
}
"""The exit status of factoryctl for each error a daemon answers with."""


def request(name: str, parameters: str, *, more: bool = False) -> bytes:
    """Return the message that calls a method of ours, its end included.

    `parameters` is a JSON object.
    """
    stream = ',"more":true' if more else ""
    return f'{{"method":"{INTERFACE}.{name}","parameters":{parameters}{stream}}}'.encode() + END
