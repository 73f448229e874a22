"""The command `factoryd`: arguments, logging, and the exit status."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import trio

from factoryd import __version__
from factoryd.adapters.config_file import LoadedConfig, find_config, load_config, render_toml
from factoryd.adapters.directories import Directories, find_directories
from factoryd.adapters.journald import connect_journal, set_up_logging
from factoryd.adapters.systemd import find_version
from factoryd.core.checkup import InForce, write_lines
from factoryd.core.errors import KEEP_AGENTS_STATUS, BadUsage, FactoryError
from factoryd.core.liveness import ServiceEnd
from factoryd.daemon import Plan, dry_run, serve
from factoryd.doctor import examine
from factoryd.installing import Target, install_units, uninstall_units
from factoryd.reading import list_facts, list_past
from factoryd.reaping import Wanted, reap
from factoryd.wire.account import describe_reaping
from factoryd.wire.retelling import encode_lines, plain_facts, retell

logger = logging.getLogger("factoryd")

MAX_ITERATIONS = 5
"""What `--iterations` is clamped to; at least 1."""


INTERRUPTED = 130
CUT_OFF = 141
"""Whoever read our answer has left; the status of a program that such a pipe has ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `factoryd` with the arguments of this process and return its exit status."""
    options = make_parser().parse_args(arguments)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except FactoryError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of command lines; manual and completions are written from it, too."""
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
    _add_events_options(
        verbs.add_parser("events", help="print the facts of the ledger, which is only read")
    )
    _add_history_options(
        verbs.add_parser(
            "history", help="print finished issues from the ledger, which is only read"
        )
    )
    summary = "end what a dead daemon has left running"
    _add_reap_options(verbs.add_parser("reap", help=summary, description=summary))
    for name, summary, verb in (
        ("install-units", "put the files of the systemd service in place", _install),
        ("uninstall-units", "take the files of the systemd service away", _uninstall),
    ):
        units = verbs.add_parser(name, help=summary, description=summary)
        units.add_argument("--user", action="store_true", help="as a service of this user")
        units.add_argument("--root", metavar="DIR", help="below the root of another system")
        units.set_defaults(verb=verb)
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


def _add_reap_options(parser: argparse.ArgumentParser) -> None:
    for option, value in (("config", "FILE"), ("state-dir", "DIR"), ("runtime-dir", "DIR")):
        parser.add_argument(f"--{option}", metavar=value, default=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--force", action="store_true", help="kill a daemon that hangs, first")
    parser.add_argument(
        "--after-stop",
        action="store_true",
        help="for ExecStopPost=: after a failure, leave the agents to the next daemon",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="say nothing when there was nothing to end"
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, for programs")
    parser.set_defaults(verb=_reap)


def _add_events_options(parser: argparse.ArgumentParser) -> None:
    _add_reading_options(parser)
    parser.add_argument("--since", type=int, metavar="SEQ", default=0, help="those above SEQ")
    parser.add_argument("--issue", metavar="KEY", help="only those of one issue")
    parser.set_defaults(verb=_events)


def _add_history_options(parser: argparse.ArgumentParser) -> None:
    _add_reading_options(parser)
    parser.add_argument("issue", metavar="ISSUE", nargs="?", help="only this one, with all it did")
    parser.add_argument(
        "-n", "--limit", type=int, metavar="N", default=50, help="the newest N (50)"
    )
    parser.set_defaults(verb=_history)


def _add_reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state-dir", metavar="DIR", default=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="answer in JSON, a line for each item")


def _reap(options: argparse.Namespace) -> int:
    wanted = Wanted(
        directories=_directories(options),
        dry_run=options.dry_run,
        force=options.force,
        after=_service_end(os.environ) if options.after_stop else None,
    )
    outcome = trio.run(reap, wanted, lambda: _load(options).config)
    if options.quiet and outcome.exit_status == 0 and not outcome.reply.reaped:
        return 0
    for note in outcome.notes:
        sys.stderr.write(f"{note}\n")
    if options.json:
        sys.stdout.write(f"{msgspec.json.encode(outcome.reply).decode()}\n")
    elif not outcome.refused:
        for line in describe_reaping(outcome.reply, dry_run=wanted.dry_run):
            sys.stdout.write(f"{line}\n")
    return outcome.exit_status


def _service_end(environ: Mapping[str, str]) -> ServiceEnd:
    result = environ.get("SERVICE_RESULT")
    if not result:
        raise BadUsage("--after-stop is for ExecStopPost= of a service: SERVICE_RESULT is not set")
    code, status = environ.get("EXIT_CODE", ""), environ.get("EXIT_STATUS", "")
    return ServiceEnd(result=result, code=code, status=status)


def _check_config(options: argparse.Namespace) -> int:
    sys.stdout.write(render_toml(_load(options).config))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    in_force = InForce.parse(options.in_force)
    checkup = examine(options.config, options.state_dir, options.runtime_dir, os.environ, in_force)
    lines = [msgspec.json.encode(checkup).decode()] if options.json else write_lines(checkup)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if checkup.failed else 0


def _events(options: argparse.Namespace) -> int:
    pages = list_facts(_directories(options).state, options.since, options.issue)
    tell = encode_lines if options.json else plain_facts
    return _tell(map(tell, pages))


def _history(options: argparse.Namespace) -> int:
    issues = list_past(_directories(options).state, options.issue, options.limit)
    return _tell([retell(issues, whole=options.issue is not None, as_json=options.json)])


def _tell(pages: Iterable[Sequence[str]]) -> int:
    """Print an answer, as factoryctl does, and return the exit status."""
    if sys.__stdout__ is None:
        raise FactoryError("there is nowhere to write the answer to: standard output is closed")
    sys.__stdout__.reconfigure(errors="backslashreplace")
    try:
        for page in pages:
            sys.stdout.write("".join(f"{line}\n" for line in page))
            sys.stdout.flush()
    except BrokenPipeError:
        return _discard_output(CUT_OFF)
    except KeyboardInterrupt:
        return _discard_output(INTERRUPTED)
    except OSError as error:
        sys.stderr.write(f"the answer cannot be written: {error.strerror}\n")
        return _discard_output(FactoryError.exit_status)
    return 0


def _discard_output(status: int) -> int:
    """Let what is still buffered go nowhere, so that the interpreter ends in silence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return status


def _install(options: argparse.Namespace) -> int:
    target = _target(options)
    systemd = trio.run(find_version) if target.root is None else None
    sys.stdout.write("".join(f"{one}\n" for one in install_units(target, os.environ, systemd)))
    return 0


def _uninstall(options: argparse.Namespace) -> int:
    lines = uninstall_units(_target(options), os.environ)
    sys.stdout.write("".join(f"{one}\n" for one in lines))
    return 0


def _target(options: argparse.Namespace) -> Target:
    root: str | None = options.root
    return Target(user=options.user, root=Path(root).absolute() if root is not None else None)


def _run(options: argparse.Namespace) -> int:
    loaded = _load(options)
    plan = Plan(
        config=loaded.config,
        file=loaded.path,
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
        _become_the_next()
    return status


def _become_the_next() -> None:
    """Run this command anew in this process, as no service manager starts the next daemon."""
    sys.stdout.flush()
    try:
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606  no shell is what is wanted
    except OSError as error:
        logger.error(  # noqa: TRY400  the sentence is for a person
            "the next daemon cannot be started (%s): agents go on, start factoryd again", error
        )


def _load(options: argparse.Namespace) -> LoadedConfig:
    path: str | None = options.config
    return load_config(find_config(path, os.environ, is_root=os.getuid() == 0))


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
