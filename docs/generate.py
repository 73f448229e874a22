#!/usr/bin/env python3
"""Writes the pages of docs/reference that are drawn from the code: `docs/generate.py config`."""

import inspect
import sys
from pathlib import Path

from factoryd.core.config_schema import Key, Section, describe
from factoryd.core.template import PLACEHOLDERS

REFERENCE = Path(__file__).parent / "reference"

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


PAGES = {"config": config_page}


def main() -> None:
    """Write the pages named as arguments, all without one."""
    for name in sys.argv[1:] or PAGES:
        (REFERENCE / f"{name}.md").write_text(PAGES[name](), encoding="utf-8")


if __name__ == "__main__":
    main()
