"""The files that are shipped beside the programs: units, manual pages, completions, catalog."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "data"


def shared_file(name: str) -> Path:
    """The shipped file `name`, such as `systemd/factoryd.service`, as a path that can be read.

    A wheel carries these files inside the package; in a source tree, which is what an editable
    installation runs from, they are where they are written.  `FileNotFoundError` says that the
    installation is incomplete.
    """
    for directory in (_INSTALLED, _PACKAGE.parent):
        found = directory / name
        if found.is_file():
            return found
    raise FileNotFoundError(f"{name} is missing from this installation of factoryd; reinstall it")
