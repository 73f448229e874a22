"""What a pidfd tells about the exit of a process that was not our child (Linux 6.15 and later)."""

import fcntl
import os
import struct

_GET_INFO = 0xC040FF0B
"""PIDFD_GET_INFO of linux/pidfd.h: `_IOWR(0xFF, 11, struct pidfd_info)`, 64 bytes."""

_EXIT = 1 << 3
"""PIDFD_INFO_EXIT: asks for the exit status; in the answer, says that there is one."""

_INFO = struct.Struct("=Q52xi")
"""The mask and, last of the first 64 bytes, the exit code in the form of waitpid(2)."""


def read_exit(fd: int) -> int | None:
    """Return a process's exit status as a shell would say it; None until it has been reaped.

    Raise `OSError` where the kernel keeps none (ENOTTY, EINVAL: it is older; ESRCH: too late).
    """
    info = bytearray(_INFO.pack(_EXIT, 0))
    fcntl.ioctl(fd, _GET_INFO, info)
    mask, code = _INFO.unpack(info)
    if not mask & _EXIT:
        return None
    status = os.waitstatus_to_exitcode(code)
    return status if status >= 0 else 128 - status
