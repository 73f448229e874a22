"""Reads, moves and writes the files of a folder of issues, never trusting what lies there."""

import ctypes
import errno
import os
import secrets
import stat
from pathlib import Path

from factoryd.core.model import Data

MAX_BYTES = 1024 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_SUCH_RENAME = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
_KINDS = {
    stat.S_IFLNK: "is a symbolic link: put the file itself here",
    stat.S_IFDIR: "is a directory: put files here",
    stat.S_IFIFO: "is a pipe: put a regular file here",
    stat.S_IFSOCK: "is a socket: put a regular file here",
}

_libc = ctypes.CDLL(None, use_errno=True)


class Unreadable(Exception):
    """A file that cannot be taken for an issue, whatever it says; the text says why."""


class Stamp(Data, frozen=True, kw_only=True):
    """What changes whenever a file does."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def mtime(self) -> float:
        """Return when the content changed last (Unix seconds)."""
        return self.mtime_ns / 1e9

    @property
    def changed(self) -> float:
        """Return when anything about the file changed last (Unix seconds)."""
        return max(self.mtime_ns, self.ctime_ns) / 1e9


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file by its status."""
    return Stamp(
        inode=status.st_ino,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )


def read_issue_file(path: Path) -> tuple[bytes, Stamp] | None:
    """Return the bytes of a regular file and the stamp they belong to; None when it is not there.

    Never blocks on a pipe, never follows a link, never reads more than `MAX_BYTES`. Raise
    `Unreadable` for what is refused.
    """
    try:
        _check_kind(path.lstat())  # before it is opened, which alone may do things to a device
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        _check_kind(status)
        if status.st_size > MAX_BYTES:
            raise Unreadable(_too_large(status.st_size))
        data = _read_all(descriptor)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        raise Unreadable(_too_large(len(data)))
    return data, stamp_of(status)


def _read_all(descriptor: int) -> bytes:
    data = bytearray()
    while len(data) <= MAX_BYTES and (chunk := os.read(descriptor, MAX_BYTES + 1 - len(data))):
        data += chunk
    return bytes(data)


def _too_large(size: int) -> str:
    return f"is larger than 1 MiB ({size} bytes): shorten it"


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = stat.S_IFMT(status.st_mode)
        raise Unreadable(_KINDS.get(kind, "is a device: put a regular file here"))


def show(path: str | Path) -> str:
    """Return a path as one printable line, whatever bytes its names are made of."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def move(source: Path, target: Path) -> None:
    """Rename a file within one file system; raise `FileExistsError` rather than replace one.

    Where the file system cannot refuse by itself, a look beforehand has to do.
    """
    result = _libc.renameat2(
        _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
    )
    if result == 0:
        return
    number = ctypes.get_errno()
    if number not in _NO_SUCH_RENAME:
        raise OSError(number, os.strerror(number), str(source), None, str(target))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def write_new(path: Path, data: bytes) -> None:
    """Create a file whole and durably; raise `FileExistsError` when there is one."""
    temporary = _write_temporary(path, data)
    try:
        move(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Write a file whole and durably, in place of the one that may be there."""
    temporary = _write_temporary(path, data)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _write_temporary(path: Path, data: bytes) -> Path:
    """Write a hidden file beside `path`, to be renamed; leave nothing when that fails."""
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, where the file system can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
