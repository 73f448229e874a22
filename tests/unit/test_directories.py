"""The daemon's own directories: where they are, and that nobody else can write there."""

import os
from pathlib import Path

import pytest

from factoryd.adapters.directories import Directories, find_directories, make_directories
from factoryd.core.errors import BadUsage

SYSTEMD = {"STATE_DIRECTORY": "/s/one:/s/two", "RUNTIME_DIRECTORY": "/r/one"}
USER = {"HOME": "/h", "XDG_STATE_HOME": "/h/state", "XDG_RUNTIME_DIR": "/r/user"}


@pytest.mark.parametrize(
    ("state", "runtime", "environ", "is_root", "found"),
    [
        ("/a", "/b", SYSTEMD | USER, True, ("/a", "/b")),
        (None, None, SYSTEMD | USER, True, ("/s/one", "/r/one")),
        (None, None, SYSTEMD | USER, False, ("/s/one", "/r/one")),
        (None, None, USER, True, ("/var/lib/factoryd", "/run/factoryd")),
        (None, None, USER, False, ("/h/state/factoryd", "/r/user/factoryd")),
        (None, None, {"HOME": "/h"}, False, ("/h/.local/state/factoryd",) * 2),
        (
            None,
            None,
            {"HOME": "/h", "XDG_STATE_HOME": "x"},
            False,
            ("/h/.local/state/factoryd",) * 2,
        ),
        ("/a", None, {}, False, ("/a", "/a")),
    ],
)
def test_options_come_before_systemd_before_custom(state, runtime, environ, is_root, found):
    directories = find_directories(state, runtime, environ, is_root=is_root)
    assert directories.state == Path(found[0])
    nested = found[0] == found[1]
    assert directories.runtime == (Path(found[0]) / "run" if nested else Path(found[1]))


def test_relative_options_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directories = find_directories("s", "r", {}, is_root=False)
    assert directories == Directories(state=tmp_path / "s", runtime=tmp_path / "r")


def test_without_a_home_directory_the_state_has_to_be_named():
    with pytest.raises(BadUsage, match="--state-dir"):
        find_directories(None, None, {}, is_root=False)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_state_is_ours_alone_and_the_runtime_can_be_entered(tmp_path, umask):
    made = Directories(state=tmp_path / "a/b/state", runtime=tmp_path / "a/c/run")
    before = os.umask(umask)
    try:
        make_directories(made)
        make_directories(made)
    finally:
        os.umask(before)
    assert made.state.stat().st_mode & 0o777 == 0o700
    assert made.runtime.stat().st_mode & 0o777 == 0o755


def test_a_directory_that_exists_is_left_as_it_is(tmp_path):
    made = Directories(state=tmp_path / "state", runtime=tmp_path / "state/run")
    made.state.mkdir()
    made.state.chmod(0o750)
    make_directories(made)
    assert made.state.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("mode", [0o1777, 0o770])
def test_a_directory_that_others_may_write_is_refused(tmp_path, mode):
    made = Directories(state=tmp_path / "state", runtime=tmp_path / "run")
    made.state.mkdir()
    made.state.chmod(mode)
    with pytest.raises(BadUsage, match="others may write there"):
        make_directories(made)


def test_what_is_no_directory_is_refused_by_name(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for place in (file, file / "below"):
        with pytest.raises(BadUsage, match=str(place)):
            make_directories(Directories(state=place, runtime=tmp_path / "run"))
