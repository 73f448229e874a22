"""A socket that plays journald."""

import array
import os
import socket
import struct
from pathlib import Path


class PlayedJournal:
    """Listens where journald would, and reads its native protocol."""

    def __init__(self, path):
        self.path = str(path)
        self.open()

    def open(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def close(self):
        self.socket.close()
        Path(self.path).unlink()

    def read(self):
        """Return the next entry's fields."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 23, socket.CMSG_SPACE(4))
        for _, _, payload in ancillary:
            with os.fdopen(array.array("i", payload)[0], "rb") as file:
                file.seek(0)
                data = file.read()
        fields = {}
        while data:
            line, _, data = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack("<Q", data[:8])
                value, data = data[8 : 8 + length], data[8 + length + 1 :]
            assert name.decode() not in fields
            fields[name.decode()] = value.decode()
        return fields

    def is_empty(self):
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False
