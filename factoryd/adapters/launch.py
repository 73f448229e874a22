"""How a run's first process comes to be: the checks, the files, the shim; and how it ended."""

import os
import re
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from factoryd.adapters.rlimits import shim_limits
from factoryd.core.errors import CannotStart
from factoryd.core.model import Command, Data, Exit, Limits, TreePlace

Process = subprocess.Popen[bytes]  # noqa: TID251 (this is the door that all agents go through)
"""A child of ours; whoever waits for its end (`pidfd.wait_ended`) then reaps it (`poll`)."""

SHIM = Path(__file__).parent.parent / "libexec" / "agent-shim"
"""Run through /bin/sh by name, as an installation may drop the execute bit."""

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_PROGRAM = "no such program"
_NOT_EXECUTABLE = "not executable"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Status(Data, frozen=True, kw_only=True):
    """What the shim leaves behind."""

    status: int
    reason: str | None = None


def resolve_program(command: Command) -> str:
    """Return the path of the command's program, or raise `CannotStart` saying what is wrong.

    A name with a slash is relative to the command's cwd, any other is looked up in its PATH. The
    answer always has a slash in it, so that no shell takes it for one of its own commands.
    """
    if not command.argv or not command.argv[0]:
        raise CannotStart("the agent's command is empty")
    program = command.argv[0]
    if fault := _fault_of_call(command) or _fault_of_place(command.cwd):
        raise CannotStart(f"{program}: {fault}")
    if "/" in program:
        if fault := _fault_of_program(os.path.join(command.cwd, program)):  # noqa: PTH118 (speed)
            raise CannotStart(f"{program}: {fault}")
        return program
    faults: list[str] = []
    for directory in command.env.get("PATH", _DEFAULT_PATH).split(":"):
        path = os.path.join(command.cwd, directory, program)  # noqa: PTH118 (speed)
        fault = _fault_of_program(path)
        if fault is None:
            return path
        faults.append(fault)
    fault = _NOT_EXECUTABLE if _NOT_EXECUTABLE in faults else _NO_PROGRAM
    raise CannotStart(f"{program}: {fault} in the agent's PATH")


def _fault_of_call(command: Command) -> str | None:
    """Say what of the call cannot be passed on to a program."""
    if "\0" in "".join((*command.argv, *command.env, *command.env.values())):
        return "its command or environment has a NUL character in it"
    for name in command.env:
        if not _VARIABLE.fullmatch(name):
            return f"the environment variable {name!r} cannot pass through a shell"
    if command.user is not None:
        return f"running as another user ({command.user}) is not supported"
    return None


def _fault_of_place(cwd: str) -> str | None:
    """Say why no program can work in this directory."""
    there = os.path.isdir(cwd)  # noqa: PTH112 (speed)
    return None if there else f"its working directory {cwd} does not exist"


def _fault_of_program(path: str) -> str | None:
    """Say why this file cannot be executed."""
    try:
        status = os.stat(path)  # noqa: PTH116 (speed)
    except (FileNotFoundError, NotADirectoryError):
        return _NO_PROGRAM
    except OSError as error:
        return error.strerror or "cannot be looked at"
    if stat.S_ISDIR(status.st_mode):
        return "a directory, not a program"
    return None if os.access(path, os.X_OK) else _NOT_EXECUTABLE


def _status_file(place: TreePlace) -> str:
    """Return where the shim leaves the exit status."""
    return f"{place.directory}/status"


def read_status(place: TreePlace) -> Exit | None:
    """Return the exit status the shim left; None when there is none."""
    if not place.directory:
        return None
    try:
        with open(_status_file(place), "rb", buffering=0) as file:  # noqa: PTH123 (speed)
            text = file.read()
        if not text:  # the shim was ended before it could write
            return None
        left = msgspec.json.decode(text, type=_Status)
    except OSError:
        return None
    except msgspec.DecodeError as error:
        return Exit(status=None, reason=f"{_status_file(place)}: {error}")
    return Exit(status=left.status, reason=left.reason)


def note_stop(place: TreePlace) -> None:
    """Note, before the first signal to a running agent, that how it ends is not its own doing.

    Whoever finds its status later, a daemon that knows nothing of the stop, must not believe it.
    """
    if place.directory and read_status(place) is None:
        with suppress(OSError):
            os.close(os.open(_stop_note(place), _APPEND, 0o600))


def was_stopped(place: TreePlace) -> bool:
    """Say whether `note_stop` noted a stop of this run."""
    return bool(place.directory) and os.path.exists(_stop_note(place))  # noqa: PTH110 (speed)


def _stop_note(place: TreePlace) -> str:
    return f"{place.directory}/stopping"


def read_end(place: TreePlace) -> float | None:
    """Return when the shim left the exit status (Unix seconds); None when it has not."""
    if not place.directory:
        return None
    try:
        return Path(_status_file(place)).stat().st_mtime
    except OSError:
        return None


def launch(
    place: TreePlace,
    command: Command,
    options: tuple[str, ...],
    contain: Callable[[], Limits] | None = None,
) -> Process:
    """Start the shim with the command; raise `CannotStart`, and then nothing has been started.

    `contain` is called last before the start; undoing it is the caller's part. It returns the
    limits that are left for the shim to set: all of the command's without it. Blocking.
    """
    program = resolve_program(command)
    opened: list[int] = []
    try:
        opened += [os.open(f"{place.directory}/output", _APPEND, 0o600)]
        opened += [os.open(command.stdin or os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
        output, stdin = opened
        left = contain() if contain is not None else command.limits
        return Process(
            shim_argv(place, (program, *command.argv[1:]), options + shim_limits(left)),
            stdin=stdin,
            stdout=output,
            stderr=output,
            env=command.env,
            cwd=command.cwd,
            start_new_session=True,
        )
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        raise CannotStart(f"{command.argv[0]}:{where} {error.strerror}") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def shim_argv(place: TreePlace, argv: tuple[str, ...], options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command line of the shim, which is what people see in `ps`."""
    names = ("--agent-name", place.agent, "--run", place.run)
    status = ("--status", _status_file(place))
    return ("/bin/sh", str(SHIM), *names, *options, *status, "--", *argv)


def parse_shim(argv: tuple[str, ...]) -> dict[str, str] | None:
    """Return the options of a shim's command line; None when it is not a shim's."""
    if len(argv) < 2 or Path(argv[1]).name != SHIM.name or "--" not in argv:
        return None
    words = argv[2 : argv.index("--")]
    return dict(zip(words[::2], words[1::2], strict=False))
