"""What shells complete, written by shtab from the parsers: verbs, options, files, live issues and agents."""

import re
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial

import shtab

from docs.command_line import list_arguments, list_verbs
from factoryctl.arguments import make_parser as make_ctl_parser
from factoryd.__main__ import make_parser

ORIGIN = "# Written by docs/generate.py with shtab; change docs/completions.py instead."

PLACES = {
    "bash": "completions/bash/{}",
    "zsh": "completions/zsh/_{}",
    "fish": "completions/fish/{}.fish",
}
"""Where the file of a program is, by shell; its name is the one that the shell looks for."""

PICK = r"""
  tr ',{' '\n\n' | sed -n '/^ *"issues":/,/^ *"handoffs":/ s/^ *"\('$1'\)": *"\([^"\\]*\)".*/\2/p'
""".strip()
"""Takes the values of some members out of a status in JSON; a quote within a value has a \\ before it."""

NAMES = {
    "bash": r"""
# Prints the names in the daemon's answer that begin with $2; $1 is the members they are in.
_factoryctl_names() {
  local i name place=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      @OPTIONS@)
        name=${COMP_WORDS[i]}
        [[ ${COMP_WORDS[i + 1]} == = ]] && ((i += 1))
        place+=("$name" "${COMP_WORDS[i + 1]/#\~\//$HOME/}") ;;
    esac
  done
  timeout 2 "${COMP_WORDS[0]/#\~\//$HOME/}" "${place[@]}" --json status 2>/dev/null |
    @PICK@ |
    while IFS= read -r name; do
      [[ $name == "$2"* ]] && printf '%s\n' "$name"
    done
}
_factoryctl_issues() { _factoryctl_names 'key' "$1"; }
_factoryctl_targets() { _factoryctl_names 'key\|name' "$1"; }
""",
    "zsh": r"""
# Offers the names in the daemon's answer; $1 is the members they are in.
_factoryctl_names() {
  local -a typed place names
  local i
  typed=(${(z)LBUFFER})
  typed=(${typed[(I)(factoryctl|*/factoryctl),-1]})
  for ((i = 2; i < $#typed; i++)); do
    case $typed[i] in
      @OPTIONS@) place+=($typed[i] ${${(Q)typed[i + 1]}/#\~\//$HOME/}) ;;
      @ASSIGNED@) place+=(${(Q)typed[i]}) ;;
    esac
  done
  names=(${(f)"$(timeout 2 ${${(Q)typed[1]}/#\~\//$HOME/} $place --json status 2>/dev/null |
    @PICK@)"})
  compadd -a names
}
_factoryctl_issues() { _factoryctl_names 'key' }
_factoryctl_targets() { _factoryctl_names 'key\|name' }
""",
    "fish": r"""
# Prints the names in the daemon's answer; the argument is the members they are in.
function _factoryctl_names
  set -l typed (commandline -opc)
  set -l place
  for i in (seq 2 (count $typed))
    switch $typed[$i]
      case @OPTIONS@
        set -a place $typed[$i] $typed[(math $i + 1)]
      case @ASSIGNED@
        set -a place $typed[$i]
    end
  end
  timeout 2 $typed[1] $place --json status 2>/dev/null |
    @PICK@
end
function _factoryctl_issues
  _factoryctl_names 'key'
end
function _factoryctl_targets
  _factoryctl_names 'key\|name'
end
""",
}
"""What asks the daemon, where the command line says it is. Without an answer nothing is offered."""


def write_completion(make: Callable[[], ArgumentParser], shell: str) -> str:
    """Return what a shell reads to complete the command lines of a program."""
    parser = make()
    _mark(parser, parser.prog == "factoryctl")
    preamble = _fill_in(NAMES[shell], shell, parser) if parser.prog == "factoryctl" else ""
    script = shtab.complete(parser, shell, preamble=preamble)
    head, _, rest = script.partition("# AUTOMATICALLY GENERATED")
    rest = re.sub(r"\A.*\n(#.*\n)*", "", rest)  # how to install it, which is not so here
    rest = re.sub(r"^# (End )?Custom Preamble\n+", "", rest, flags=re.MULTILINE)
    text = f"{head}{ORIGIN}\n{rest}"
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def _mark(parser: ArgumentParser, asks: bool) -> None:  # noqa: FBT001
    """Say of each argument what its values are; how it is called in the usage tells."""
    files = {"FILE": shtab.FILE, "PATH": shtab.FILE, "DIR": shtab.DIRECTORY}
    names = {
        "ISSUE": "_factoryctl_issues",
        "KEY": "_factoryctl_issues",
        "TARGET": "_factoryctl_targets",
    }
    for one in list_arguments(parser):
        if one.metavar in files:
            one.complete = files[one.metavar]  # type: ignore[attr-defined]
        elif one.metavar in names and asks:
            name = names[one.metavar]
            one.complete = {"bash": name, "zsh": name, "fish": f"({name})"}  # type: ignore[attr-defined]
    for verb in list_verbs(parser):
        _mark(verb.parser, asks)


def _fill_in(script: str, shell: str, parser: ArgumentParser) -> str:
    """Return the functions that ask, with the options that say where the daemon is."""
    options = [
        name for one in list_arguments(parser) if one.nargs != 0 for name in one.option_strings
    ]
    fish = shell == "fish"
    either, first = (" ", "$argv[1]") if fish else (" | ", "$1")
    assigned = [f"'{name}=*'" if fish else f"{name}=*" for name in options]
    return (
        script.replace("@OPTIONS@", either.join(options))
        .replace("@ASSIGNED@", either.join(assigned))
        .replace("@PICK@", PICK.replace("$1", first))
    )


FILES = {
    place.format(make().prog): partial(write_completion, make, shell)
    for make in (make_ctl_parser, make_parser)
    for shell, place in PLACES.items()
}
