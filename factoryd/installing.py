"""`factoryd install-units` and `uninstall-units`: the service's files, put in place and taken away."""

import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath

import factoryd
from factoryd.adapters.directories import find_home
from factoryd.adapters.placing import Ground
from factoryd.core.errors import BadUsage
from factoryd.core.installation import (
    Installation,
    fill_in,
    for_image,
    for_machine,
    for_user,
    is_ours,
)
from factoryd.core.model import Data
from factoryd.share import shared_file


class Target(Data, frozen=True, kw_only=True):
    """Whom files are installed for: a user or the machine, or the machine below `root`."""

    user: bool = False
    root: Path | None = None


def install_units(
    target: Target, environ: Mapping[str, str], systemd: int | None
) -> tuple[str, ...]:
    """Put every file in its place and return what was done and what to do next, a line each.

    A file that is as it should be is not touched. Raises a `FactoryError` before anything is
    written: when a file that is not factoryd's own is in the way, or the service could not run the
    programs. `systemd` is the version that will read the units, None for any.
    """
    installation, ground = _installation(target, environ), Ground(target.root)
    programs = find_programs(sys.executable, sys.argv[0])
    if not target.user and target.root is None:
        code = Path(factoryd.__file__).parent
        check_open(programs, Path(sys.executable).resolve().parent, code, Path(sys.base_prefix))
    wanted: dict[PurePath, bytes] = {}
    stand: dict[PurePath, bytes | None] = {}
    for one in installation.files:
        path = PurePath(installation.base, one.to)
        text = shared_file(one.name).read_text(encoding="utf-8")
        wanted[path] = fill_in(text, one, str(programs), systemd).encode()
        stand[path] = content = ground.read(path)
        if content is not None and content != wanted[path] and not is_ours(content):
            raise BadUsage(
                f"{ground.shown(path)}: is not one of factoryd's own files, and nothing was "
                "written: move it away"
            )
    told: list[str] = []
    for path, content in wanted.items():
        if stand[path] == content:
            told.append(f"{ground.shown(path)}: unchanged")
        else:
            ground.write(path, content)
            told.append(f"{ground.shown(path)}: written")
    return (*told, "next:", *(f"  {command}" for command in installation.begin))


def uninstall_units(target: Target, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Remove the files that were installed and return what was done, a line each.

    What is not factoryd's own is left as it is and named.
    """
    installation, ground = _installation(target, environ), Ground(target.root)
    told: list[str] = []
    for one in installation.files:
        path = PurePath(installation.base, one.to)
        try:
            content = ground.read(path)
        except BadUsage as error:
            told.append(f"{error}: kept")
            continue
        if content is None:
            continue
        if is_ours(content):
            ground.remove(path)
            told.append(f"{ground.shown(path)}: removed")
        else:
            told.append(f"{ground.shown(path)}: kept, it is not one of factoryd's own files")
    if not told:
        return ("nothing was installed",)
    return (*told, "next:", *(f"  {command}" for command in installation.end))


def _installation(target: Target, environ: Mapping[str, str]) -> Installation:
    if not target.user:
        installation = for_machine()
    else:
        home = find_home(environ, "XDG_DATA_HOME", ".local/share")
        if home is None:
            raise BadUsage("no place for a user's units: HOME is not set: set it")
        installation = for_user(str(home))
    if target.root is None:
        return installation
    return for_image(installation, str(target.root))


def find_programs(interpreter: str, called: str) -> Path:
    """Return the directory that factoryd and factoryctl are run from.

    That of the interpreter, as in a virtual environment, else of the program that was `called`.
    """
    for directory in (Path(interpreter).parent, Path(called).absolute().parent):
        if all(os.access(directory / one, os.X_OK) for one in ("factoryd", "factoryctl")):
            return directory
    raise BadUsage(
        f"there are no programs factoryd and factoryctl beside {interpreter}: install factoryd "
        "(pipx, or pip in a virtual environment) and run install-units of that one"
    )


def check_open(*needed: Path) -> None:
    """Raise `BadUsage` when the service's own user could not come to one of these directories."""
    places = {
        each for one in needed for path in (one, one.resolve()) for each in (path, *path.parents)
    }
    for place in sorted(places):
        if not place.stat().st_mode & stat.S_IXOTH:
            raise BadUsage(
                f"{place}: is closed to other users, and the service runs as one: install factoryd "
                "elsewhere, such as with PIPX_HOME=/opt/pipx, or run install-units --user"
            )
