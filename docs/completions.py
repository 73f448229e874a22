"""What shells complete, written from the parsers: verbs, options, files, and what a daemon has at work."""

import re
from argparse import Action, ArgumentParser
from collections.abc import Callable, Iterator
from functools import partial

from docs.command_line import (
    Verb,
    explain,
    is_among,
    list_arguments,
    list_shared,
    list_verbs,
    rivals,
)
from factoryctl.arguments import make_parser as make_ctl_parser
from factoryd.__main__ import make_parser

ORIGIN = "# Written by docs/generate.py; change docs/completions.py instead.\n"

KINDS = {
    "FILE": "file",
    "PATH": "file",
    "DIR": "directory",
    "ISSUE": "issue",
    "KEY": "issue",
    "TARGET": "target",
}
"""What a value is, by what the usage calls it; of others nothing is known."""

PICK = r"""
tr ',{' '\n\n' | sed -n '/^ *"issues":/,/^ *"handoffs":/ s/^ *"\('@MEMBERS@'\)": *"\([^"\\]*\)".*/\2/p'
""".strip()
"""Takes some members' values out of a status in JSON; within a value each quote has a \\ before it."""

BASH = r"""
_@PROGRAM@() {
  local verb= kind= option= past=0 word place=() words=() i
  # Bash cuts --option=value in three.
  for ((i = 1; i <= COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == = ]] && ((i < COMP_CWORD)) && continue
    words+=("${COMP_WORDS[i]#=}")
  done
  local current=${words[-1]}
  for word in "${words[@]:0:${#words[@]}-1}"; do
    if [[ -n $kind ]]; then
      case $option in
        @PLACES@) place+=("$option" "${word/#\~\//$HOME/}") ;;
      esac
      kind=
    elif [[ $word == -* ]]; then
      option=$word
      _@PROGRAM@_value "$verb/$word"
    elif [[ -z $verb ]]; then
      verb=$word
    else
      ((past += 1))
    fi
  done
  COMPREPLY=()
  if [[ -z $kind && $current == -* ]]; then
    _@PROGRAM@_options "$verb"
  elif [[ -z $kind && -z $verb ]]; then
    mapfile -t COMPREPLY < <(compgen -W '@VERBS@' -- "$current")
  else
    [[ -n $kind ]] || _@PROGRAM@_argument "$verb/$past"
    case $kind in
      file)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        ;;
      directory)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        ;;
      issue) _@PROGRAM@_names 'key' ;;
      target) _@PROGRAM@_names 'key\|name' ;;
    esac
  fi
}

# What the value of VERB/OPTION is.
_@PROGRAM@_value() {
  case $1 in
@VALUES@
  esac
}

# What the next argument of VERB/NUMBER is.
_@PROGRAM@_argument() {
  case $1 in
@ARGUMENTS@
  esac
}

_@PROGRAM@_options() {
  local options
  case $1 in
@OPTIONS@
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}

# Asks the daemon that the command line is for; without an answer nothing is offered.
_@PROGRAM@_names() {
  local name program=${COMP_WORDS[0]/#\~\//$HOME/}
  while IFS= read -r name; do
    [[ $name == "$current"* ]] && COMPREPLY+=("$name")
  done < <(timeout 2 "${program%factory*}factoryctl" "${place[@]}" --json status 2>/dev/null |
    @PICK@)
}

complete -F _@PROGRAM@ @PROGRAM@
"""

ZSH = r"""
_@PROGRAM@() {
  local curcontext=$curcontext program=${${(Q)words[1]}/#\~\//$HOME/} state line
  local -a place verbs
  local -A opt_args
  verbs=(
@VERBS@
  )
  _arguments -C -s -S \
@GENERAL@
    '(-): :->verb' '(-)*:: :->arguments' && return
  case $state in
    verb) _describe -t verbs verb verbs ;;
    arguments)
      _@PROGRAM@_place
      curcontext=${curcontext%:*:*}:@PROGRAM@-$words[1]:
      case $words[1] in
@ARGUMENTS@
      esac
      ;;
  esac
}

# Takes what says where the daemon is out of the options so far.
_@PROGRAM@_place() {
  local option
  for option in @PLACES@; do
    [[ -n $opt_args[$option] ]] && place+=($option ${${(Q)opt_args[$option]}/#\~\//$HOME/})
  done
}

# Asks the daemon that the command line is for; without an answer nothing is offered.
_@PROGRAM@_names() {
  local -a names
  [[ $PREFIX == -* ]] && return 1
  _@PROGRAM@_place
  names=(${(f)"$(timeout 2 ${program%factory*}factoryctl $place --json status 2>/dev/null |
    @PICK@)"})
  compadd -a names
}
_@PROGRAM@_issues() { _@PROGRAM@_names 'key' }
_@PROGRAM@_targets() { _@PROGRAM@_names 'key\|name' }

_@PROGRAM@ "$@"
"""

FISH = r"""
# Whether the command line is at the verb, or with arguments at an argument of one of these verbs;
# -a says that no argument may be before it.
function __@PROGRAM@_at
  argparse a/alone -- $argv
  set -l verb ''
  set -l past 0
  set -l value no
  for word in (commandline -opc)[2..]
    if test $value = yes
      set value no
    else if contains -- $word @VALUED@
      set value yes
    else if string match --quiet -- '-*' $word
      continue
    else if test -z "$verb"
      set verb $word
    else
      set past 1
    end
  end
  if not set -q argv[1]
    test -z "$verb"
  else
    contains -- "$verb" $argv
    and begin
      not set -q _flag_alone
      or test $past = 0
    end
  end
end

# Asks the daemon that the command line is for; without an answer nothing is offered.
function __@PROGRAM@_names
  set -l words (commandline -opc)
  set -l place
  for i in (seq 2 (count $words))
    switch $words[$i]
      case @PLACES@
        set -a place $words[$i] (string replace --regex '^~/' "$HOME/" -- $words[(math $i + 1)])
      case @ASSIGNED@
        set -a place $words[$i]
    end
  end
  set -l program (string replace --regex '^~/' "$HOME/" -- $words[1])
  timeout 2 (string replace --regex 'factory\w+$' factoryctl -- $program) $place --json status 2>/dev/null |
    @PICK@
end

complete -c @PROGRAM@ -f
@COMPLETE@
"""


def write_bash(make: Callable[[], ArgumentParser]) -> str:
    """Return what bash reads to complete the command lines of a program."""
    parser = make()
    shared = list_shared(parser)
    values: dict[str, list[str]] = {}
    arguments: dict[str, list[str]] = {}
    options: list[str] = []
    for names, of in _contexts(parser):
        every = list_arguments(of)
        words = " ".join(name for one in every for name in one.option_strings)
        options.append(f"    {' | '.join(names or ['*'])}) options='{words}' ;;")
        for name in names or [""]:
            for one in every:
                known = one not in shared and is_among(one, shared)
                if one.option_strings and one.nargs != 0 and not known:
                    cases = [
                        f"{'*' if one in shared else name}/{option}"
                        for option in one.option_strings
                    ]
                    values.setdefault(_kind(one), []).extend(cases)
            for number, one in enumerate(each for each in every if not each.option_strings):
                place = "*" if one.nargs in {"*", "+"} else number
                arguments.setdefault(_kind(one), []).append(f"{name}/{place}")
    return _fill_in(
        BASH,
        parser,
        VERBS=" ".join(name for verb in list_verbs(parser) for name in _names(verb)),
        VALUES=_cases(values),
        ARGUMENTS=_cases(arguments),
        OPTIONS="\n".join([*options[1:], options[0]]),
        PLACES=" | ".join(_places(parser)),
        MEMBERS='"$1"',
    )


def write_zsh(make: Callable[[], ArgumentParser]) -> str:
    """Return what zsh reads to complete the command lines of a program."""
    parser = make()
    verbs = list_verbs(parser)
    described = (f"{name}:{verb.summary}" for verb in verbs for name in _names(verb))
    arguments = (
        f"        {' | '.join(_names(verb))})\n          _arguments -s -S : \\\n"
        + " \\\n".join(f"            {spec}" for spec in _zsh_specs(parser.prog, verb.parser))
        + "\n          ;;"
        for verb in verbs
    )
    return f"#compdef {parser.prog}\n" + _fill_in(
        ZSH,
        parser,
        VERBS="\n".join(f"    {_quote(one)}" for one in described),
        GENERAL="\n".join(f"    {spec} \\" for spec in _zsh_specs(parser.prog, parser)),
        ARGUMENTS="\n".join(arguments),
        PLACES=" ".join(_places(parser)),
        MEMBERS="$1",
    )


def write_fish(make: Callable[[], ArgumentParser]) -> str:
    """Return what fish reads to complete the command lines of a program."""
    parser = make()
    lines = [
        f"-n __{parser.prog}_at -a {name} -d {_quote(verb.summary)}"
        for verb in list_verbs(parser)
        for name in _names(verb)
    ]
    valued: list[str] = []
    shared = list_shared(parser)
    for names, of in _contexts(parser):
        at = f"__{parser.prog}_at"
        for one in list_arguments(of):
            valued += [name for name in one.option_strings if one.nargs != 0]
            alone = "" if one.option_strings or one.nargs in {"*", "+"} else " -a"
            when = "" if one in shared else f"-n '{' '.join([at + alone, *names])}' "
            if one in shared or not is_among(one, shared):
                lines.append(f"{when}{_fish_argument(parser.prog, of, one)}")
    places = _places(parser)
    return _fill_in(
        FISH,
        parser,
        COMPLETE="\n".join(f"complete -c {parser.prog} {line}" for line in lines),
        VALUED=" ".join(dict.fromkeys(valued)),
        PLACES=" ".join(places),
        ASSIGNED=" ".join(f"'{one}=*'" for one in places),
        MEMBERS="$argv[1]",
    )


def _contexts(parser: ArgumentParser) -> Iterator[tuple[list[str], ArgumentParser]]:
    """Yield the program's own parser, then each verb's with the verb's names."""
    yield [], parser
    for verb in list_verbs(parser):
        yield _names(verb), verb.parser


def _names(verb: Verb) -> list[str]:
    return [verb.name, *verb.aliases]


def _kind(one: Action) -> str:
    return KINDS.get(str(one.metavar), "text")


def _places(parser: ArgumentParser) -> list[str]:
    """Return the options of a program that say where a daemon is: all with files for values."""
    return [
        name
        for one in list_arguments(parser)
        if _kind(one) in {"file", "directory"}
        for name in one.option_strings
    ]


def _cases(of: dict[str, list[str]]) -> str:
    return "\n".join(f"    {' | '.join(cases)}) kind={kind} ;;" for kind, cases in of.items())


def _zsh_specs(program: str, parser: ArgumentParser) -> Iterator[str]:
    actions = {
        "file": "_files",
        "directory": "_files -/",
        "issue": f"_{program}_issues",
        "target": f"_{program}_targets",
        "text": " ",
    }
    for one in list_arguments(parser):
        action = actions[_kind(one)]
        what = re.sub(r"([:\[\]\\])", r"\\\1", str(one.metavar or one.dest))
        if not one.option_strings:
            again = {"*": "*", "+": "*", "?": ":"}.get(str(one.nargs), "")
            yield _quote(f"{again}:{what}:{action}")
            continue
        others = [name for each in rivals(parser, one) for name in each.option_strings]
        excluded = "- *" if one.dest in {"help", "version"} else " ".join(others)
        says = re.sub(r"([:\[\]\\])", r"\\\1", explain(parser, one))
        for name in one.option_strings:
            joined = "" if one.nargs == 0 else "=" if name.startswith("--") else "+"
            value = "" if one.nargs == 0 else f":{what}:{action}"
            yield _quote(f"({excluded}){name}{joined}[{says}]{value}")


def _fish_argument(program: str, parser: ArgumentParser, one: Action) -> str:
    words = [
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        for name in one.option_strings
    ]
    if one.option_strings and one.nargs == 0:
        return " ".join([*words, f"-d {_quote(explain(parser, one))}"])
    offered = {
        "file": "-F",
        "directory": "-a '(__fish_complete_directories)'",
        "issue": f"-a '(__{program}_names key)'",
        "target": f"-a '(__{program}_names \"key\\|name\")'",
        "text": "",
    }[_kind(one)]
    if one.option_strings:
        words += ["-r" if offered == "-F" else "-x", f"-d {_quote(explain(parser, one))}"]
    return " ".join([*words, offered]).rstrip()


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fill_in(script: str, parser: ArgumentParser, **parts: str) -> str:
    for name, text in {"PICK": PICK, "PROGRAM": parser.prog, **parts}.items():
        script = script.replace(f"@{name}@", text)
    return f"{ORIGIN}{script}"


PROGRAMS = {"factoryctl": make_ctl_parser, "factoryd": make_parser}
FILES = {
    name: write
    for program, make in PROGRAMS.items()
    for name, write in (
        (f"docs/shells/bash/{program}", partial(write_bash, make)),
        (f"docs/shells/zsh/_{program}", partial(write_zsh, make)),
        (f"docs/shells/fish/{program}.fish", partial(write_fish, make)),
    )
}
"""Every file, named as the shell wants it."""
