"""Files put in their places: each replaced as a whole, none through a link that was laid there."""

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from factoryd.core.errors import BadUsage, PermissionDenied

_NOT_THERE = (FileNotFoundError, NotADirectoryError)


class Ground:
    """Where absolute paths begin: at the machine's own root, or at another directory.

    Below another directory no symbolic link is followed, for it would lead out of it. All methods
    block, and raise `BadUsage` for what is in the way and `PermissionDenied` where this user may
    not write.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._nofollow = 0 if root is None else os.O_NOFOLLOW

    def shown(self, path: PurePath) -> str:
        """Return how a person finds the file."""
        return str(path if self._root is None else self._root / path.relative_to("/"))

    def read(self, path: PurePath) -> bytes | None:
        """Return a file's content; None when there is no such file."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with self._directory(path) as directory:
                status = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise BadUsage(f"{self.shown(path)}: is no plain file: move it away")
                with os.fdopen(os.open(path.name, flags, dir_fd=directory), "rb") as file:
                    return file.read()
        except _NOT_THERE:
            return None

    def write(self, path: PurePath, content: bytes) -> None:
        """Put a file in its place at once, for all to read; directories are made as needed."""
        fresh = f".{path.name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._directory(path, make=True) as directory:
            with suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=directory)
            with os.fdopen(os.open(fresh, flags, 0o644, dir_fd=directory), "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path.name, src_dir_fd=directory, dst_dir_fd=directory)

    def remove(self, path: PurePath) -> None:
        """Remove a file."""
        with self._directory(path) as directory:
            os.unlink(path.name, dir_fd=directory)

    @contextmanager
    def _directory(self, path: PurePath, *, make: bool = False) -> Generator[int]:
        """Open the directory that a file is in; the errors of what is done in it are told too."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        here = Path(self.shown(PurePath("/")))
        descriptor = -1
        try:
            descriptor = os.open(here, flags)
            for part in path.parts[1:-1]:
                here /= part
                if make:
                    _make(part, descriptor)
                self._check_link(part, descriptor, here)
                below = os.open(part, flags | self._nofollow, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        except _NOT_THERE:
            if make:
                raise BadUsage(f"{here}: is no directory: mend that") from None
            raise
        except PermissionError as error:
            raise PermissionDenied(
                f"{self.shown(path)}: you may not write there: run it as root, or with --user"
            ) from error
        except OSError as error:
            raise BadUsage(f"{self.shown(path)}: {error.strerror}: mend that") from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _check_link(self, part: str, directory: int, here: Path) -> None:
        if self._root is None:
            return
        status = os.stat(part, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            raise BadUsage(f"{here}: is a symbolic link, and nothing is written through it")


def _make(part: str, directory: int) -> None:
    """Make a directory that all may look into, unless there is one."""
    with suppress(FileExistsError):
        os.mkdir(part, 0o755, dir_fd=directory)
        # mkdir's mode is subject to the umask, and this is not our own directory.
        os.chmod(part, 0o755, dir_fd=directory)  # noqa: S103  all may read it
