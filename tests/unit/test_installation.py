"""`install-units` and `uninstall-units`: whole files, in their places, and nobody else's touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import pytest

from factoryd.adapters.placing import Ground
from factoryd.core.errors import BadUsage
from factoryd.core.installation import (
    MARK,
    Shipped,
    fill_in,
    for_image,
    for_machine,
    for_user,
    is_ours,
    parse_version,
)
from factoryd.installing import (
    Target,
    check_open,
    find_programs,
    install_units,
    uninstall_units,
)
from factoryd.share import shared_file
from tests.programs import find_program

ROOT = Path(__file__).parents[2]
SERVICE = "usr/local/lib/systemd/system/factoryd.service"
PLAIN = Shipped(name="x", to="x")


@pytest.fixture
def image(tmp_path):
    return Target(root=tmp_path)


@pytest.fixture
def open_place():
    """Make a directory that all may come to."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


AS_NOBODY = """
import os, sys
from pathlib import Path
from factoryd import installing
from factoryd.core.errors import PermissionDenied
from factoryd.installing import Target, install_units
Path(sys.argv[1]).chmod(0o555)
installing.shared_file = Path(sys.argv[2]).joinpath
installing.find_programs = lambda *_: Path("/usr/bin")
if os.geteuid() == 0:
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
try:
    install_units(Target(root=Path(sys.argv[1])), {}, None)
except PermissionDenied as denied:
    print(denied)
"""


def files(root):
    return sorted(str(one.relative_to(root)) for one in root.rglob("*") if not one.is_dir())


def snapshot(root):
    return {
        one: ((root / one).read_bytes(), (root / one).stat().st_mtime_ns) for one in files(root)
    }


# ------------------------------------------------------------------------------------ what is in it


def test_units_name_the_programs_that_are_installed_and_nothing_else_changes():
    text = (
        "# /usr/bin/factoryd x\nExecStart=/usr/bin/factoryd run\nExecReload=/usr/bin/factoryctl r\n"
    )
    filled = fill_in(text, PLAIN, "/opt/f/bin", None)
    assert filled.splitlines()[:3] == [
        "# /usr/bin/factoryd x",
        "ExecStart=/opt/f/bin/factoryd run",
        "ExecReload=/opt/f/bin/factoryctl r",
    ]


@pytest.mark.parametrize("directory", ["/a b/bin", "/a%b", '/a"', "/a\\b", "/a\nb", "/ä", "bin"])
def test_a_directory_that_a_unit_cannot_name_is_refused(directory):
    with pytest.raises(BadUsage, match="a unit cannot name this directory"):
        fill_in("", PLAIN, directory, None)


@pytest.mark.parametrize(
    ("systemd", "there"), [(252, False), (253, False), (254, True), (257, True), (None, True)]
)
def test_a_systemd_gets_nothing_that_it_does_not_know(systemd, there):
    newer = ("DelegateSubgroup=daemon\n", "RestartMode=direct\n")
    text = f"[Service]\nDelegate=yes\n{''.join(newer)}User=f\n"
    filled = fill_in(text, PLAIN, "/b", systemd)
    assert [line in filled for line in newer] == [there, there]
    assert "Delegate=yes\n" in filled
    assert "User=f\n" in filled


@pytest.mark.parametrize("comment", ["#", '.\\"'])
def test_what_was_installed_is_known_by_its_last_line(comment):
    filled = fill_in("text\n", Shipped(name="x", to="x", comment=comment), "/b", None)
    assert filled.endswith(f"\n{comment} {MARK}\n")
    assert is_ours(filled.encode())
    assert not is_ours(b"text\n")
    assert not is_ours(filled.encode() + b"[Service]\nUser=me\n")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("systemd 252 (252.39-1~deb12u1)\n+PAM", 252),
        ("systemd 257 (257~rc1)", 257),
        ("", None),
        ("x 3", None),
    ],
)
def test_the_version_of_systemd_is_read_from_what_it_says(said, version):
    assert parse_version(said) == version


def test_every_shipped_unit_is_installed_for_the_machine_and_for_users():
    shipped = {f"systemd/{one}" for one in files(ROOT / "systemd")}
    installed = {one.name for one in (*for_machine().files, *for_user("/d").files)}
    assert shipped <= installed
    for installation in (for_machine(), for_user("/d")):
        places = [one.to for one in installation.files]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize("installation", [for_machine(), for_user("/d")])
def test_the_manual_and_all_completions_are_installed_for_the_machine_and_for_users(installation):
    shipped = {
        str(one.relative_to(ROOT))
        for directory in ("docs/man", "docs/shells")
        for one in (ROOT / directory).rglob("*")
        if one.is_file()
    }
    assert len(shipped) == 9
    assert shipped <= {one.name for one in installation.files}


def test_whoever_installs_the_catalog_is_told_to_make_it_known():
    for one in (for_machine(), for_image(for_machine(), "/image")):
        for commands in (one.begin, one.end):
            assert any(
                command.startswith("journalctl") and command.endswith(" --update-catalog")
                for command in commands
            )


def test_commands_for_an_image_name_its_root():
    commands = for_image(for_machine(), "/image")
    assert all("--root=/image" in one for one in (*commands.begin, *commands.end))


# ------------------------------------------------------------------------------------ where it goes


def test_all_files_are_written_whole_and_what_comes_next_is_told(image):
    told = install_units(image, {}, None)
    placed = [PurePath("/usr/local", one.to) for one in for_machine().files]
    assert files(image.root) == sorted(str(one.relative_to("/")) for one in placed)
    assert told[: len(placed)] == tuple(f"{image.root}{one}: written" for one in placed)
    assert told[len(placed)] == "next:"
    assert told[len(placed) + 1 :]
    for one in files(image.root):
        assert is_ours((image.root / one).read_bytes())
        assert (image.root / one).stat().st_mode & 0o777 == 0o644
    bin_ = Path(sys.executable).parent
    assert f"ExecStart={bin_}/factoryd run\n" in (image.root / SERVICE).read_text()


def test_a_second_time_changes_nothing_and_says_so(image):
    install_units(image, {}, None)
    before = snapshot(image.root)
    told = install_units(image, {}, None)
    assert snapshot(image.root) == before
    assert sum(one.endswith(": unchanged") for one in told) == len(before)


def test_the_journal_has_the_catalog_once_it_was_told_to_read_it(image):
    journalctl = find_program("journalctl", "systemd")
    install_units(image, {}, None)
    catalog = [journalctl, f"--root={image.root}"]
    subprocess.run([*catalog, "--update-catalog"], check=True)
    done = subprocess.run([*catalog, "--dump-catalog"], capture_output=True, text=True, check=True)
    assert "Subject: The daemon has started" in done.stdout
    assert MARK not in done.stdout


def test_a_file_of_another_version_is_replaced_and_the_others_are_not_touched(image):
    install_units(image, {}, None)
    before = snapshot(image.root)
    (image.root / SERVICE).write_text(f"[Service]\nOld=yes\n# {MARK}\n")
    told = install_units(image, {}, None)
    after = snapshot(image.root)
    assert after.pop(SERVICE)[0] == before.pop(SERVICE)[0]
    assert after == before
    assert [one for one in told if one.endswith(": written")] == [
        f"{image.root}/{SERVICE}: written"
    ]


def test_a_file_that_is_not_ours_stops_the_installation_before_it_begins(image):
    timer = image.root / "usr/local/lib/systemd/system/factoryd-reap.timer"
    timer.parent.mkdir(parents=True)
    timer.write_text("[Timer]\n")
    with pytest.raises(BadUsage, match=f"{timer}: is not one of factoryd's own files"):
        install_units(image, {}, None)
    assert files(image.root) == [str(timer.relative_to(image.root))]
    assert timer.read_text() == "[Timer]\n"


def test_uninstalling_removes_what_was_installed_and_nothing_else(image):
    install_units(image, {}, None)
    mine = image.root / "usr/local/lib/systemd/system/mine.service"
    mine.write_text("mine")
    foreign = image.root / "usr/local/lib/sysusers.d/factoryd.conf"
    foreign.write_text("u me -\n")
    told = uninstall_units(image, {})
    assert files(image.root) == sorted(str(one.relative_to(image.root)) for one in (mine, foreign))
    assert f"{foreign}: kept, it is not one of factoryd's own files" in told
    assert f"{image.root}/{SERVICE}: removed" in told
    assert "next:" in told


def test_uninstalling_what_was_never_installed_says_so(image):
    assert uninstall_units(image, {}) == ("nothing was installed",)
    assert list(image.root.iterdir()) == []


def test_a_users_units_are_where_the_users_systemd_looks(tmp_path):
    environ = {"HOME": str(tmp_path), "XDG_DATA_HOME": "relative"}
    install_units(Target(user=True), environ, None)
    units = tmp_path / ".local/share/systemd/user"
    assert {one.name for one in units.iterdir()} == {
        "factoryd.service",
        "factoryd.socket",
        "factoryd-reap.service",
        "factoryd-reap.timer",
    }
    assert "\nUser=" not in (units / "factoryd.service").read_text()
    uninstall_units(Target(user=True), environ)
    assert files(tmp_path) == []
    elsewhere = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    install_units(Target(user=True), elsewhere, None)
    assert (tmp_path / "data/systemd/user/factoryd.service").exists()


def test_a_user_without_a_home_is_told_so():
    with pytest.raises(BadUsage, match="HOME is not set"):
        install_units(Target(user=True), {}, None)


# ---------------------------------------------------------------------------------- a hostile place


@pytest.mark.parametrize("link", ["usr", "usr/local", "usr/local/lib/systemd/system"])
@pytest.mark.parametrize("absolute", [True, False])
def test_no_link_in_an_image_leads_out_of_it(tmp_path, link, absolute):
    image, outside = tmp_path / "image", tmp_path / "outside"
    outside.mkdir()
    place = image / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside if absolute else os.path.relpath(outside, place.parent))
    with pytest.raises(BadUsage, match=f"{place}: is a symbolic link"):
        install_units(Target(root=image), {}, None)
    assert list(outside.iterdir()) == []


def test_nothing_outside_an_image_is_removed(tmp_path):
    image, outside = tmp_path / "image", tmp_path / "outside"
    image.mkdir()
    outside.mkdir()
    install_units(Target(root=outside), {}, None)
    before = snapshot(outside)
    for one in outside.iterdir():
        (image / one.name).symlink_to(one)
    told = uninstall_units(Target(root=image), {})
    assert all(one.endswith(": kept") for one in told[: len(before)])
    assert snapshot(outside) == before


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_plain_file_is_neither_written_through_nor_removed(image, tmp_path, kind):
    place = image.root / SERVICE
    place.parent.mkdir(parents=True)
    target = tmp_path / "target"
    target.write_text(f"# {MARK}\n")
    match kind:
        case "link":
            place.symlink_to(target)
        case "fifo":
            os.mkfifo(place)
        case _:
            place.mkdir()
    with pytest.raises(BadUsage, match=f"{place}: is no plain file: move it away"):
        install_units(image, {}, None)
    assert any(
        f"{place}: is no plain file" in one and one.endswith("kept")
        for one in uninstall_units(image, {})
    )
    assert place.is_symlink() or place.exists()
    assert target.read_text() == f"# {MARK}\n"


def test_a_root_that_is_not_there_or_has_a_file_in_the_way_is_named(tmp_path):
    with pytest.raises(BadUsage, match=f"{tmp_path}/none: is no directory"):
        install_units(Target(root=tmp_path / "none"), {}, None)
    (tmp_path / "usr").write_text("")
    with pytest.raises(BadUsage, match=f"{tmp_path}/usr: is no directory"):
        install_units(Target(root=tmp_path), {}, None)


def test_a_leftover_of_an_installation_that_died_is_not_in_the_way(tmp_path):
    ground, path = Ground(tmp_path), PurePath("/d/file")
    ground.write(path, b"old")
    (tmp_path / "d" / ".file.new").symlink_to(tmp_path / "elsewhere")
    ground.write(path, b"new")
    assert ground.read(path) == b"new"
    assert sorted(one.name for one in (tmp_path / "d").iterdir()) == ["file"]


def test_directories_that_are_made_are_open_to_all_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        Ground(tmp_path).write(PurePath("/a/b/file"), b"")
    finally:
        os.umask(before)
    modes = {one.stat().st_mode & 0o777 for one in (tmp_path / "a", tmp_path / "a/b")}
    assert modes == {0o755}


def test_who_may_not_write_there_is_told_what_to_do(open_place):
    root, shipped = open_place / "root", open_place / "shipped"
    root.mkdir()
    for one in for_machine().files:  # where these are otherwise, nobody may not look
        (shipped / one.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared_file(one.name), shipped / one.name)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(root), str(shipped)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == (
        f"{root}/{SERVICE}: you may not write there: run it as root, or with --user\n"
    )


# ------------------------------------------------------------------------------------ the programs


def programs(directory):
    directory.mkdir(parents=True)
    for name in ("factoryd", "factoryctl"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    return directory


def test_programs_are_those_beside_the_interpreter_else_those_that_were_called(tmp_path):
    venv, local = programs(tmp_path / "venv"), programs(tmp_path / "local")
    bare = str(tmp_path / "bare" / "python3")
    assert find_programs(str(venv / "python3"), str(local / "factoryd")) == venv
    assert find_programs(bare, str(local / "factoryd")) == local
    (local / "factoryctl").unlink()
    with pytest.raises(BadUsage, match="no programs factoryd and factoryctl"):
        find_programs(bare, str(local / "factoryd"))


def test_programs_that_the_services_user_could_not_come_to_are_refused(open_place):
    home = open_place / "home"
    venv = programs(home / "venv" / "bin")
    check_open(venv)
    home.chmod(0o750)
    with pytest.raises(BadUsage, match=f"{home}: is closed to other users"):
        check_open(venv)
    (open_place / "link").symlink_to(venv)
    with pytest.raises(BadUsage, match=f"{home}: is closed to other users"):
        check_open(open_place / "link")


def test_the_command_installs_into_an_image_and_takes_it_away_again(tmp_path):
    command = [sys.executable, "-m", "factoryd"]
    done = subprocess.run(
        [*command, "install-units", "--root", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path}/{SERVICE}: written\n" in done.stdout
    done = subprocess.run(
        [*command, "uninstall-units", "--root", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert files(tmp_path) == []
