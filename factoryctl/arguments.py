"""The command line of factoryctl: one function for each verb's own arguments."""

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, HelpFormatter, Namespace
from collections.abc import Callable, Sequence

from factoryd import __version__

_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """Return the command line's meaning; a wrong one ends the program with usage and status 2.

    `run` is the name of the module in `factoryctl.verbs` that does it.
    """
    return make_parser().parse_args(arguments)


def make_parser() -> ArgumentParser:
    """Return the parser of command lines; manual and completions are written from it, too."""
    parser = ArgumentParser(
        prog="factoryctl",
        description="Watch and steer factoryd.",
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="version", version=f"factoryctl {__version__}")
    parser.set_defaults(socket=None, config=None, state_dir=None, runtime_dir=None, json=False)
    _common(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name, (define, aliases, summary) in VERBS.items():
        verb = verbs.add_parser(
            name,
            aliases=aliases,
            help=summary,
            description=summary,
            allow_abbrev=False,
            formatter_class=_formatter,
        )
        verb.set_defaults(run=name)
        _common(verb)
        define(verb)
    return parser


def _formatter(prog: str) -> HelpFormatter:
    """Return what writes help, its width given: measuring the terminal costs a slow import."""
    return HelpFormatter(prog, width=80)


def _common(parser: ArgumentParser) -> None:
    """Add what may stand before the verb as well as after it."""
    group = parser.add_argument_group("where the daemon is, and how to answer")
    group.add_argument("--socket", metavar="PATH", default=SUPPRESS, help="its control socket")
    group.add_argument("--config", metavar="FILE", default=SUPPRESS, help="its configuration")
    group.add_argument("--state-dir", metavar="DIR", default=SUPPRESS, help="its state directory")
    group.add_argument(
        "--runtime-dir", metavar="DIR", default=SUPPRESS, help="the directory of its socket"
    )
    group.add_argument(
        "--json", action="store_true", default=SUPPRESS, help="answer in JSON, for programs"
    )


def _status(parser: ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="an issue or an agent")
    parser.add_argument("--watch", action="store_true", help="show it again whenever it changes")


def _submit(parser: ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="an issue; - reads it from stdin")


def _kill(parser: ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="*", help="an issue or an agent")
    parser.add_argument("--all", action="store_true", help="end every issue")
    parser.add_argument("--yes", action="store_true", help="do not ask before ending every issue")
    grace = parser.add_mutually_exclusive_group()
    grace.add_argument(
        "--grace", metavar="D", type=_seconds, help="time to end by itself (30s, 2m)"
    )
    grace.add_argument("--now", action="store_true", help="give no time at all")
    parser.add_argument("--reason", metavar="TEXT", help="why, for the record")
    parser.add_argument("--no-wait", action="store_true", help="return once stopping has begun")


def _logs(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="an agent, or an issue that has only one")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    parser.add_argument(
        "-n", "--lines", metavar="N", type=_count, default=100, help="the last N lines (100)"
    )
    parser.add_argument("--run", dest="run_id", metavar="ID", help="a run other than the newest")


def _events(parser: ArgumentParser) -> None:
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens next")
    parser.add_argument(
        "--since", metavar="SEQ", type=_count, default=0, help="only those numbered above SEQ"
    )
    parser.add_argument("--issue", metavar="KEY", help="only those of one issue")


def _history(parser: ArgumentParser) -> None:
    parser.add_argument("issue", metavar="ISSUE", nargs="?", help="only this one, with all it did")
    parser.add_argument(
        "-n", "--limit", metavar="N", type=_count, default=50, help="the newest N (50)"
    )


def _freeze(parser: ArgumentParser) -> None:
    _thaw(parser)
    parser.add_argument("--reason", metavar="TEXT", help="why, for the record")


def _thaw(parser: ArgumentParser) -> None:
    parser.add_argument("issue", metavar="ISSUE", help="its key, or the name of one of its agents")


def _explain(parser: ArgumentParser) -> None:
    parser.add_argument("issue", metavar="ISSUE", help="its key, or the name of one of its agents")


def _pause(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", help="why, for the record")


def _restart(parser: ArgumentParser) -> None:
    parser.add_argument("--keep-agents", action="store_true", help="the agents go on meanwhile")


def _reap(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")


def _nothing(parser: ArgumentParser) -> None:
    """Add nothing: the verb takes no arguments."""


VERBS: dict[str, tuple[Callable[[ArgumentParser], None], list[str], str]] = {
    "status": (_status, [], "show the daemon, its sources, issues and agents"),
    "submit": (_submit, [], "put issues into the factory"),
    "kill": (_kill, [], "end issues with all their agents, and prove that nothing is left"),
    "logs": (_logs, [], "show an agent's output"),
    "events": (_events, [], "show what happened"),
    "history": (_history, [], "show finished issues, or all that one issue went through"),
    "explain": (_explain, [], "say why an issue is dispatched, or why not"),
    "health": (_nothing, ["loop-status"], "say whether the daemon makes progress"),
    "freeze": (_freeze, [], "have an issue stand still with all its agents"),
    "thaw": (_thaw, [], "have a frozen issue go on"),
    "retry": (_freeze, [], "have an ended issue begin anew, with all its attempts"),
    "release": (_freeze, [], "end an issue as done, its work being done elsewhere"),
    "pause": (_pause, [], "dispatch nothing new; what runs goes on"),
    "resume": (_nothing, [], "go on dispatching"),
    "reload": (_nothing, [], "have the daemon read its configuration anew"),
    "doctor": (_nothing, [], "say what this machine offers, what is wrong and what to do"),
    "restart": (_restart, [], "replace the daemon, with --keep-agents while its agents go on"),
    "reap-orphans": (_reap, [], "end agents that nobody looks after, with or without a daemon"),
    "shutdown": (_nothing, ["kill-loop"], "stop the daemon and every agent"),
}
"""The verbs: the function that adds a verb's arguments, its other names, and what it does."""


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12})(ms|s|m|h)", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no duration: write 250ms, 30s, 5m or 2h")
    return int(match[1]) * _UNIT_S[match[2]]


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)
