"""What of the shipped files a machine or a user is given: where it goes and what is in it."""

import re
from collections.abc import Iterator

from factoryd.core.errors import BadUsage
from factoryd.core.model import Data

MARK = "Written by `factoryd install-units`, which writes it anew: changes here are lost."
"""The last line of every file that was installed, after what makes it a comment."""

_PROGRAMS = re.compile(r"^(Exec\w+=)/usr/bin/(factoryd|factoryctl)(?= )", re.MULTILINE)
_PLAIN = re.compile(r"/[A-Za-z0-9/._+@:~-]+")
"""A path that a unit file has as it is, without quotes."""

_NEWER = re.compile(r"^(?:DelegateSubgroup|RestartMode)=.*\n", re.MULTILINE)
_NEWER_SINCE = 254
"""The first systemd that has them; an older one warns of what it does not know."""


class Shipped(Data, frozen=True, kw_only=True):
    """One file: its name among the shipped ones, and its place below a base directory or at the root.

    `comment` is what begins a comment in it.
    """

    name: str
    to: str
    comment: str = "#"


class Installation(Data, frozen=True, kw_only=True):
    """What is installed below `base`, and the commands that come next.

    `begin` follows the installation and `end` the removal; in each `{root}` is where commands take
    another root directory.
    """

    base: str
    files: tuple[Shipped, ...]
    begin: tuple[str, ...]
    end: tuple[str, ...]


_UNITS = ("factoryd.service", "factoryd.socket", "factoryd-reap.service", "factoryd-reap.timer")
_MANUAL = ("factoryctl.1", "factoryd.toml.5", "factoryd.8")
_COMPLETED = ("factoryctl", "factoryd")
_STARTED = "factoryd.service factoryd.socket factoryd-reap.timer"


def _for_people(share: str, fish: str) -> Iterator[Shipped]:
    """Yield the manual and what shells complete, below the directory that shells and man look in."""
    for page in _MANUAL:
        to = f"{share}man/man{page[-1]}/{page}"
        yield Shipped(name=f"docs/man/{page}", to=to, comment='.\\"')
    for one in _COMPLETED:
        to = f"{share}bash-completion/completions/{one}"
        yield Shipped(name=f"docs/shells/bash/{one}", to=to)
        to = f"{share}zsh/site-functions/_{one}"
        yield Shipped(name=f"docs/shells/zsh/_{one}", to=to)
        yield Shipped(name=f"docs/shells/fish/{one}.fish", to=f"{fish}/{one}.fish")


def for_machine() -> Installation:
    """Return what the machine's administrator installs."""
    return Installation(
        base="/usr/local",
        files=(
            *(Shipped(name=f"systemd/{one}", to=f"lib/systemd/system/{one}") for one in _UNITS),
            Shipped(name="systemd/factoryd.sysusers", to="lib/sysusers.d/factoryd.conf"),
            Shipped(name="systemd/factoryd.tmpfiles", to="lib/tmpfiles.d/factoryd.conf"),
            Shipped(name="systemd/factoryd.catalog", to="lib/systemd/catalog/factoryd.catalog"),
            # Of what is below /usr/local fish does not know unless XDG_DATA_DIRS says so.
            *_for_people("share/", "/etc/fish/completions"),
        ),
        begin=(
            "systemd-sysusers factoryd.conf",
            "systemd-tmpfiles --create factoryd.conf",
            "journalctl --update-catalog",
            "systemctl daemon-reload",
            "systemctl enable --now factoryd.service",
        ),
        end=(
            f"systemctl stop {_STARTED}",
            f"systemctl disable {_STARTED}",
            "journalctl --update-catalog",
        ),
    )


def for_user(data_home: str) -> Installation:
    """Return what a user installs for services of their own; `data_home` is `$XDG_DATA_HOME`."""
    return Installation(
        base=data_home,
        files=(
            *(Shipped(name=f"systemd/user/{one}", to=f"systemd/user/{one}") for one in _UNITS),
            *_for_people("", "fish/vendor_completions.d"),
        ),
        begin=(
            "systemctl --user daemon-reload",
            "systemctl --user enable --now factoryd.service",
            "loginctl enable-linger",
        ),
        end=(f"systemctl --user stop {_STARTED}", f"systemctl --user disable {_STARTED}"),
    )


def for_image(installation: Installation, root: str) -> Installation:
    """Return the same for the root directory of a machine that does not run."""
    return Installation(
        base=installation.base,
        files=installation.files,
        begin=(
            f"systemd-sysusers --root={root} factoryd.conf",
            f"journalctl --root={root} --update-catalog",
            f"systemctl --root={root} enable factoryd.service",
        ),
        end=(
            f"systemctl --root={root} disable {_STARTED}",
            f"journalctl --root={root} --update-catalog",
        ),
    )


def fill_in(text: str, shipped: Shipped, programs: str, systemd: int | None) -> str:
    """Return a shipped file as it is installed, marked as ours.

    Units get the directory that the `programs` are in, and nothing that this version of systemd
    does not know; None for a version is one that knows everything. Raises `BadUsage` for a
    directory that a unit file cannot name.
    """
    if not _PLAIN.fullmatch(programs):
        raise BadUsage(
            f"{programs}: a unit cannot name this directory: install factoryd in one whose path "
            "has only letters, digits and /._+@:~- in it"
        )
    text = _PROGRAMS.sub(lambda found: f"{found[1]}{programs}/{found[2]}", text)
    if systemd is not None and systemd < _NEWER_SINCE:
        text = _NEWER.sub("", text)
    return f"{text.rstrip()}\n{shipped.comment} {MARK}\n"


def is_ours(content: bytes) -> bool:
    """Say whether a file is one that was installed from here, in this version or another."""
    return content.rstrip().endswith(MARK.encode())


def parse_version(said: str) -> int | None:
    """Return the version in what `systemctl --version` says; None when there is none."""
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None
