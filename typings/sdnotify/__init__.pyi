import socket as _socket

class SystemdNotifier:
    socket: _socket.socket | None
    debug: bool
    def __init__(self, debug: bool = ...) -> None: ...
    def notify(self, state: str) -> None: ...
