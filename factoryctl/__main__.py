"""factoryctl as a program: arguments in, exit status out."""

import importlib
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from factoryctl import arguments
from factoryctl.errors import Failure
from factoryctl.output import say
from factoryctl.places import find_sockets

INTERRUPTED = 130
CUT_OFF = 141
"""Whoever read our answer has left; the status of a program that such a pipe has ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit status."""
    try:
        status = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
        _discard_output()
    except BrokenPipeError:
        status = CUT_OFF
        _discard_output()
    except OSError as error:
        status = 1
        say(f"the answer cannot be written: {error.strerror}")
        _discard_output()
    return status


def _run(argv: Sequence[str] | None) -> int:
    if sys.__stdout__ is None:
        say("there is nowhere to write the answer to: standard output is closed")
        return 1
    sys.__stdout__.reconfigure(errors="backslashreplace")
    options = arguments.parse(argv)
    options.sockets = find_sockets(
        socket=options.socket,
        runtime=options.runtime_dir,
        state=options.state_dir,
        environ=os.environ,
        is_root=os.geteuid() == 0,
    )
    try:
        # Only the verb's own module is imported: each verb costs what it needs, no more.
        verb: Callable[[Namespace], int] = importlib.import_module(
            f"factoryctl.verbs.{options.run.replace('-', '_')}"
        ).run
        return verb(options)
    except Failure as failure:
        say(str(failure))
        return failure.exit_status


def _discard_output() -> None:
    """Let what is still buffered go nowhere, so that the interpreter ends in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
