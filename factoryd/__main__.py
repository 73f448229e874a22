"""The command `factoryd`: arguments, logging, and the exit status."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

import msgspec
import trio

from factoryd import __version__
from factoryd.adapters.config_file import find_config, load_config, render_toml
from factoryd.adapters.directories import Directories, find_directories
from factoryd.adapters.journald import connect_journal, set_up_logging
from factoryd.core.checkup import InForce, write_lines
from factoryd.core.config import Config
from factoryd.core.errors import KEEP_AGENTS_STATUS, FactoryError
from factoryd.daemon import Plan, dry_run, serve
from factoryd.doctor import examine

logger = logging.getLogger("factoryd")

MAX_ITERATIONS = 5
"""What `--iterations` is clamped to; at least 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `factoryd` with the arguments of this process and return its exit status."""
    options = _parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except FactoryError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="factoryd", description="Supervise coding agents, one nursery per issue."
    )
    parser.add_argument("--version", action="version", version=f"factoryd {__version__}")
    _add_run_options(parser)
    parser.set_defaults(verb=_run)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    run = verbs.add_parser("run", help="supervise in the foreground (what happens without a verb)")
    _add_run_options(run, argparse.SUPPRESS)
    check = verbs.add_parser("check-config", help="print the effective configuration as TOML")
    check.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS)
    check.set_defaults(verb=_check_config)
    doctor = verbs.add_parser("doctor", help="look at everything that a daemon depends on")
    for option, metavar in (("config", "FILE"), ("state-dir", "DIR"), ("runtime-dir", "DIR")):
        doctor.add_argument(f"--{option}", metavar=metavar, default=argparse.SUPPRESS)
    doctor.add_argument("--json", action="store_true", help="answer in JSON, for programs")
    doctor.add_argument(
        "--in-force",
        metavar="CONTAINMENT[:CONTROLLER,...]",
        default="",
        help="what a running daemon uses, as `factoryctl doctor` has asked it",
    )
    doctor.set_defaults(verb=_doctor)
    return parser


def _add_run_options(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    parser.add_argument("--config", metavar="FILE", default=default, help="the configuration")
    parser.add_argument("--state-dir", metavar="DIR", default=default, help="what is kept")
    parser.add_argument("--runtime-dir", metavar="DIR", default=default, help="socket, heartbeat")
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument(
        "--once",
        action="store_true",
        default=default or False,
        help="end when nothing is ready, running or cooling down",
    )
    extent.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        default=default,
        help=f"ask the sources N times (1..{MAX_ITERATIONS}), then end as with --once",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        default=default or False,
        help="print what would be dispatched, and touch nothing",
    )


def _check_config(options: argparse.Namespace) -> int:
    sys.stdout.write(render_toml(_load(options)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    in_force = InForce.parse(options.in_force)
    checkup = examine(options.config, options.state_dir, options.runtime_dir, os.environ, in_force)
    lines = [msgspec.json.encode(checkup).decode()] if options.json else write_lines(checkup)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if checkup.failed else 0


def _run(options: argparse.Namespace) -> int:
    plan = Plan(
        config=_load(options),
        directories=_directories(options),
        drain_after=_drain_after(options),
    )
    if options.dry_run:
        for line in trio.run(dry_run, plan):
            sys.stdout.write(f"{line}\n")
        return 0
    journal = connect_journal(os.environ)
    set_up_logging(journal)
    try:
        status = trio.run(serve, plan, journal)
    except FactoryError as error:
        logger.error("not started: %s", error)  # noqa: TRY400  the sentence is for a person
        return error.exit_status
    if status == KEEP_AGENTS_STATUS and not os.environ.get("NOTIFY_SOCKET"):
        # No service manager starts the next daemon: this process becomes it.
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  no shell is what is wanted
    return status


def _load(options: argparse.Namespace) -> Config:
    path: str | None = options.config
    return load_config(find_config(path, os.environ, is_root=os.getuid() == 0)).config


def _directories(options: argparse.Namespace) -> Directories:
    state: str | None = options.state_dir
    runtime: str | None = options.runtime_dir
    return find_directories(state, runtime, os.environ, is_root=os.getuid() == 0)


def _drain_after(options: argparse.Namespace) -> int | None:
    iterations: int | None = options.iterations
    if iterations is not None:
        return min(max(iterations, 1), MAX_ITERATIONS)
    return 0 if options.once else None


if __name__ == "__main__":
    sys.exit(main())
