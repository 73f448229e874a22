#!/usr/bin/env python3
"""Writes what is drawn from the code, `docs/generate.py [PART OF A NAME]...`."""

import inspect
import sys
from functools import partial
from pathlib import Path

import msgspec

from docs import completions, manual
from factoryd.core.config_schema import Key, Section, describe
from factoryd.core.events import KINDS, AttemptEnded, Fact, kind_of
from factoryd.core.explanations import EXPLANATIONS, write_catalog
from factoryd.core.lifecycle import IN_FLIGHT, MOVES, TERMINAL
from factoryd.core.model import IssueState
from factoryd.core.narration import TROUBLE, WEIGHTS, Weight, message_id
from factoryd.core.policy import BLOCKS, LATER_BLOCKS, NEXT_STEPS, RESULTS, NextStep
from factoryd.core.template import PLACEHOLDERS
from factoryd.flow.varlink import describe_interface
from factoryd.wire.framing import ERROR_EXITS, MAX_REQUEST_BYTES
from factoryd.wire.messages import METHODS

ROOT = Path(__file__).parent.parent

CONFIG_INTRO = """\
# Configuration

<!-- Written by docs/generate.py from the code; change factoryd/core/config.py instead. -->

One TOML file, looked for in this order:

1. `--config FILE`
2. `$CONFIGURATION_DIRECTORY/factoryd.toml` (systemd sets it)
3. `/etc/factoryd/factoryd.toml` for root,
   `$XDG_CONFIG_HOME/factoryd/factoryd.toml` (else `~/.config/...`) for other users

`factoryd check-config` prints the effective configuration, defaults included, or every mistake at
once, one `FILE: key: reason` each, and then exits with 2. Unknown keys are mistakes. Paths are
relative to the directory of the file.

A daemon reads it when it starts, and again at [`factoryctl reload`](../how-to/reload.md) or SIGHUP.

- A *duration* is a whole number and a unit, `"250ms"`, `"30s"`, `"5m"` or `"2h"`.
- A *size* is a whole number and `K`, `M`, `G` or `T` (powers of 1024), or bytes without a unit.

## The smallest useful file

```toml
[[sources]]
kind = "folder"
path = "issues"

[repos.demo]
path = "demo-repo"

[[routes]]
default = true
repo = "demo"
recipe = "pair"

[recipes.pair]
stages = [["implementer"], ["reviewer"]]

[agents.implementer]
kind = "command"
name = "impl"
command = ["./implement.sh", "{issue.key}", "{issue_file}"]

[agents.reviewer]
kind = "command"
name = "review"
command = ["./review.sh", "{issue.key}", "{workspace}"]
```
"""

CONFIG_COMMAND = """
### Placeholders in `command`

Each argument is filled in by itself, without a shell: whatever an issue's text holds, it stays one
argument. `{{` and `}}` stand for braces. The program, the first entry, takes no text from an issue.
A title may begin with a dash: where the program could take it for an option, put `"--"` before it
or pass `{issue_file}` instead.

"""

CONFIG_ENVIRONMENT = """
### Environment

An agent gets the variables of `pass_env` that the daemon has, those of `env`, and factoryd's own,
which all begin with `FACTORY_`; nothing else.

What its exit leads to is in [the life of an issue](lifecycle.md).
"""


def config_page() -> str:
    """Return docs/reference/config.md."""
    sections = "\n".join(_write_section(section) for section in describe())
    rows = "".join(f"| `{{{name}}}` | {meaning} |\n" for name, meaning in PLACEHOLDERS.items())
    table = f"| placeholder | becomes |\n|---|---|\n{rows}"
    return f"{CONFIG_INTRO}\n{sections}{CONFIG_COMMAND}{table}{CONFIG_ENVIRONMENT}"


def _write_section(section: Section) -> str:
    meaning = inspect.cleandoc(section.meaning)
    rows = "".join(_write_key(key) for key in section.keys)
    return (
        f"## `{section.title}`\n\n{meaning[:1].upper()}{meaning[1:]}\n\n"
        f"| key | takes | default | meaning |\n|---|---|---|---|\n{rows}"
    )


def _write_key(key: Key) -> str:
    default = "required" if key.required else f"`{key.default}`" if key.default else "not set"
    cells = (f"`{key.name}`", key.type, default, key.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


FACTS_INTRO = """\
# Facts

<!-- Written by docs/generate.py from the code; change factoryd/core/events.py instead. -->

A fact is something that happened, committed to the ledger before anybody hears of it. Nothing else
changes state: what `factoryctl status` shows is what the facts add up to. `factoryctl events` shows
them, with or without a daemon, `factoryctl --json events` as one JSON object a line:

| member | is |
|---|---|
| `seq` | its number, counting up from 1; `--since` takes it |
| `at` | when it was committed (RFC 3339, UTC) |
| `kind` | its kind, below |
| `issue` | the key of its issue; empty for the daemon's own facts |
| `run` | the run it is about, or null |
| `body` | the fact as it is stored, with its kind as `type` |

Each kind may happen only in some states of its issue, and leads to the state shown after the arrow;
in any other state it is refused and changes nothing. An attempt that ends with a moment to wait for
(`not_before`) leads to `cooldown` instead. [The life of an issue](lifecycle.md) has the same by state.

Whoever reads facts must accept members and kinds that are not listed here: a newer factoryd may
write them. In [the journal](journal.md) each kind has its `MESSAGE_ID`, the same for ever.
"""

WIRE_INTRO = """\
# The control socket

<!-- Written by docs/generate.py from the code; change factoryd/wire instead. -->

`control.sock` in the runtime directory is a Unix stream socket that speaks
[Varlink](https://varlink.org): each message is one JSON object, ended by a NUL byte. Any Varlink
client works; the description below is also what the daemon gives to one that asks. A call with
`"more": true` may be answered by several replies, all but the last with `"continues": true`.

Members that are not known are ignored, here as there, so that peers of different age understand
each other. Times are RFC 3339 in UTC. What is unknown is null, never a guess.

Who calls is known from the kernel, and `[access]` of the configuration says what that user may do:
*read* is open to readers and operators, *steer* to operators; root and the daemon's own user may do
everything. A caller from inside an agent's process tree may read, whoever it is.
"""


def facts_page() -> str:
    """Return docs/reference/facts.md."""
    values: list[type] = []
    kinds = "\n".join(_write_kind(kind, values) for kind in KINDS)
    parts: list[str] = []
    for value in values:  # grows while it is walked: values hold values
        fields = _write_fields(value, values)
        parts.append(f"### {value.__name__}\n\n{_sentence(value)}\n\n{fields}")
    return f"{FACTS_INTRO}\n## Kinds\n\n{kinds}\n## Values\n\n" + "\n".join(parts)


def wire_page() -> str:
    """Return docs/reference/wire.md."""
    rows = "".join(
        f"| `{name}` | {'read' if spec.reads else 'steer'} | {'yes' if spec.streams else 'no'} "
        f"| {spec.doc} |\n"
        for name, spec in METHODS.items()
    )
    errors = "".join(f"| `{name}` | {status} |\n" for name, status in ERROR_EXITS.items())
    return (
        f"{WIRE_INTRO}\n"
        f"A request may have {MAX_REQUEST_BYTES:,} bytes; a larger one ends its connection.\n\n"
        f"## Methods\n\n| method | needs | may stream | what it does |\n|---|---|---|---|\n{rows}\n"
        f"## Errors\n\n| error | exit status of factoryctl |\n|---|---|\n{errors}\n"
        f"## Description\n\n```varlink\n{describe_interface()}```\n"
    )


def _write_kind(kind: type[Fact], values: list[type]) -> str:
    return (
        f"### `{kind_of(kind)}`\n\n{_sentence(kind)}\n\n{_write_moves(kind)}"
        f"`MESSAGE_ID={message_id(kind)}`\n\n{_write_fields(kind, values)}"
    )


def _write_moves(kind: type[Fact]) -> str:
    moves = MOVES[kind]
    if not moves:
        return "It concerns no issue.\n\n"
    if moves == {state: state for state in IssueState}:
        return "An issue stays what it was.\n\n"
    known = [state for state in IssueState if state in moves]
    lines = []
    for after in IssueState:
        before = [f"`{state}`" for state in known if moves[state] is after]
        before += ["an unknown issue"] if moves.get(None) is after else []
        if before:
            lines.append(f"- {', '.join(before)} → `{after}`\n")
    return "".join(lines) + "\n"


def _write_fields(struct: type, values: list[type]) -> str:
    described = msgspec.inspect.type_info(struct)
    assert isinstance(described, msgspec.inspect.StructType)
    fields = [field for field in described.fields if field.name != "issue" or struct not in KINDS]
    rows = "".join(f"| `{one.encode_name}` | {_name(one.type, values)} |\n" for one in fields)
    return f"| member | is |\n|---|---|\n{rows}" if rows else "It has no members of its own.\n"


def _name(kind: msgspec.inspect.Type, values: list[type]) -> str:
    match kind:
        case msgspec.inspect.UnionType(types=(one, msgspec.inspect.NoneType())):
            return f"{_name(one, values)}, or null"
        case (
            msgspec.inspect.VarTupleType(item_type=item)
            | msgspec.inspect.FrozenSetType(item_type=item)
        ):
            return f"list of {_name(item, values)}"
        case msgspec.inspect.EnumType(cls=cls):
            return ", ".join(f"`{member.value}`" for member in cls)
        case msgspec.inspect.StructType(cls=cls):
            if cls not in values:
                values.append(cls)
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case _:
            return _PLAIN[type(kind)]


def _sentence(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "")


_PLAIN: dict[type[msgspec.inspect.Type], str] = {
    msgspec.inspect.StrType: "text",
    msgspec.inspect.IntType: "whole number",
    msgspec.inspect.FloatType: "number",
    msgspec.inspect.BoolType: "true or false",
}

LIFECYCLE_INTRO = """\
# The life of an issue

<!-- Written by docs/generate.py from the code; change factoryd/core/lifecycle.py, policy.py instead. -->

These are the tables the daemon decides by. The states are those of `factoryctl status`, the moves
are [facts](facts.md), and [the configuration](config.md) has the numbers.
"""

LIFECYCLE_MOVES = """\
## Moves

Each row is a state, each line in it a fact that may happen then and the state that it leads to. What
is not here is refused and changes nothing. Facts that leave an issue what it was are in
[their own page](facts.md) only.
"""

LIFECYCLE_BLOCKS = """\
## Why an issue is not dispatched

Asked in this order; the first that holds is the reason that is shown. The texts are these, to the
letter.
"""

LIFECYCLE_RESULTS = """\
## What a run amounted to

Asked once the root process of a run has ended, in this order; the first that holds is the result.
[Exit statuses](exit-statuses.md) says how death by a signal counts.
"""

LIFECYCLE_STEPS = """\
## What follows the end of a run

Asked in this order; the first that holds is what is done. However many hear of one exit, it is
decided once.
"""

STEPS = {
    NextStep.IGNORE: "nothing: whoever stops it leads on",
    NextStep.RELEASE: "the issue is ended without this agent",
    NextStep.FINISH: "the agent's part is done; the next stage begins once all of its stage are",
    NextStep.ANOTHER_ROUND: "back to the first stage, `max_rounds` times at most, then parked",
    NextStep.DEFER: "the attempt ends without counting, the issue cools down, longer each time",
    NextStep.RESUME: "a new run of the same agent, with its session where one is known, after `delay`",
    NextStep.FAIL: "the attempt has failed: cooldown, or parked after `max_attempts`",
}
"""What each step comes to."""


def lifecycle_page() -> str:
    """Return docs/reference/lifecycle.md."""
    blocks = [(f"`{reason}`", when) for reason, when, _ in BLOCKS]
    blocks += [(f"`{reason}`", when) for reason, when in LATER_BLOCKS]
    results = [(when, f"`{result}`") for when, _, result in RESULTS]
    steps = [(when, f"`{step}`", STEPS[step]) for when, _, step in NEXT_STEPS]
    moves = [(_state_name(state), "<br>".join(_moves_from(state))) for state in (None, *IssueState)]
    return "\n".join(
        (
            LIFECYCLE_INTRO,
            f"{_states('The claim is held', IN_FLIGHT)} {_states('The work has ended', TERMINAL)}\n",
            f"{LIFECYCLE_MOVES}\n{_table(('state', 'what may happen, and what it is then'), moves)}",
            f"{LIFECYCLE_BLOCKS}\n{_table(('reason', 'when'), blocks)}",
            f"{LIFECYCLE_RESULTS}\n{_table(('when', 'result'), results)}",
            f"{LIFECYCLE_STEPS}\n{_table(('when', 'step', 'what happens'), steps)}",
        )
    )


def _states(what: str, states: frozenset[IssueState]) -> str:
    return f"{what} in {', '.join(f'`{state}`' for state in IssueState if state in states)}."


def _state_name(state: IssueState | None) -> str:
    return "unknown to the ledger" if state is None else f"`{state}`"


def _moves_from(state: IssueState | None) -> list[str]:
    """Return what leads from a state to another one."""
    lines = [
        f"`{kind_of(kind)}` → `{moves[state]}`"
        for kind, moves in MOVES.items()
        if state in moves and moves[state] is not state
    ]
    if state in MOVES[AttemptEnded] and MOVES[AttemptEnded][state] is not state:
        lines.append(f"`{kind_of(AttemptEnded)}` with `not_before` → `{IssueState.COOLDOWN}`")
    return lines


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


JOURNAL_INTRO = """\
# The journal

<!-- Written by docs/generate.py from the code; change factoryd/core/explanations.py instead. -->

As a systemd service `factoryd` writes to the journal, elsewhere to standard error.
[A systemd service](../how-to/systemd.md) shows how to read it.

## Fields

| field | holds | is on |
|---|---|---|
| `MESSAGE` | one sentence, or a line of an agent's output | every entry |
| `PRIORITY` | 3 error, 4 warning: a person should look; 5 notice, 6 info, 7 debug | every entry |
| `SYSLOG_IDENTIFIER` | `factoryd`, or the name of the agent that printed the line | every entry |
| `MESSAGE_ID` | the kind of fact, the same for ever | facts |
| `FACTORY_FACT` | the kind of fact by its name | facts |
| `FACTORY_ISSUE` | the key of the issue | what concerns one |
| `FACTORY_AGENT` | the name of the agent | what concerns one |
| `FACTORY_RUN` | the id of the run | what concerns one |
| `FACTORY_OFFSET` | where the line ends in the run's output file | agents' output |
| `LOGGER`, `CODE_FILE`, `CODE_LINE`, `CODE_FUNC` | where in the program it was said | the daemon's own entries |

## Agents' output

Each line that an agent prints becomes an entry of its own, as far as it fits: `journal_rate` of
[`[output]`](config.md) bounds what one run may say there, and where journald falls far behind, lines
are passed over. An entry says how many lines are missing. `factoryctl logs` reads from the run's own
file, which has all of them.

The daemon never waits for journald. What is not taken at once is kept and sent later, the daemon's own
entries up to 8 MB of them; whatever becomes of those, `factoryctl events` has the facts.

## Messages

These are the kinds of [facts](facts.md). `journalctl -x` shows the same texts below the entries, with
the fields filled in, once `factoryd.catalog` is installed.
"""


def journal_page() -> str:
    """Return docs/reference/journal.md."""
    return f"{JOURNAL_INTRO}\n" + "\n".join(_write_message(kind) for kind in KINDS)


def _write_message(kind: type[Fact]) -> str:
    text, weight = EXPLANATIONS[kind], WEIGHTS.get(kind, Weight.INFO)
    bad = sorted(f"`{result}`" for result in TROUBLE.get(kind, ()))
    worse = f"; {Weight.WARNING} where the result is {' or '.join(bad)}" if bad else ""
    return (
        f"### `{kind_of(kind)}`\n\n`MESSAGE_ID={message_id(kind)}`, priority {weight}{worse}\n\n"
        f"**{text.subject}.** {text.meaning}\n\n{text.advice}\n"
    )


PAGES = {
    "config": config_page,
    "facts": facts_page,
    "journal": journal_page,
    "lifecycle": lifecycle_page,
    "wire": wire_page,
}

FILES = {f"docs/reference/{name}.md": page for name, page in PAGES.items()}
FILES["systemd/factoryd.catalog"] = write_catalog
FILES |= manual.PAGES | completions.FILES
FILES["docs/man/factoryd.toml.5"] = partial(manual.write_config_page, CONFIG_INTRO, CONFIG_COMMAND)


def main() -> None:
    """Write the files whose names hold one of the arguments, all without one."""
    for file, write in FILES.items():
        if not sys.argv[1:] or any(name in file for name in sys.argv[1:]):
            (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / file).write_text(write(), encoding="utf-8")


if __name__ == "__main__":
    main()
