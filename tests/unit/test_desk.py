"""The files of issues and runs: made privately, read without trust."""

import os
import subprocess
from pathlib import Path

import pytest

from factoryd.adapters.desk import MAX_READ_BYTES, StateDesk
from factoryd.core.errors import WorkspaceFailed
from factoryd.core.model import Issue, RunId, TreePlace

ISSUE = Issue(key="AR-1", title="Größe: 5", body="line\r\n🤖\n")
RUN = RunId("ar-1-impl-0c41")


@pytest.fixture
def desk(tmp_path):
    return StateDesk(tmp_path)


@pytest.fixture
def place(desk):
    directory = desk.make_run_directory("AR-1", RUN)
    return TreePlace(run=RUN, issue="AR-1", agent="ar-1-impl", directory=directory)


def write(place, data):
    with Path(place.directory, "output").open("ab") as file:
        file.write(data)


def texts(lines):
    return [text for _, text in lines]


# ------------------------------------------------------------------------------------- what is made


def test_a_run_has_a_private_directory_of_its_own(desk, tmp_path):
    path = desk.make_run_directory("AR-1", RUN)
    assert path == str(tmp_path / "runs" / "AR-1" / RUN)
    assert Path(path).stat().st_mode & 0o777 == 0o700
    with pytest.raises(WorkspaceFailed, match="File exists"):
        desk.make_run_directory("AR-1", RUN)


def test_an_issues_text_is_written_byte_for_byte(desk):
    path = desk.write_issue(ISSUE)
    assert path == desk.issue_path("AR-1")
    assert Path(path).read_bytes() == "# Größe: 5\n\nline\r\n🤖\n".encode()
    desk.write_issue(Issue(key="AR-1", title="New"))
    assert Path(path).read_text() == "# New\n\n"


def test_feedback_is_where_it_was_said_to_be(desk):
    desk.write_feedback("AR-1", "do better")
    assert Path(desk.feedback_path("AR-1")).read_text() == "do better"


def test_asking_where_something_would_be_makes_nothing(desk, tmp_path):
    desk.feedback_path("AR-1")
    desk.issue_path("AR-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc", "/etc", "..", ".", "", "a/b", "\0", "x" * 1000, "é"])
def test_no_name_leads_out_of_its_directory(desk, tmp_path, name):
    path = desk.write_issue(Issue(key=name, title="t"))
    assert os.path.realpath(path).startswith(f"{tmp_path}/issues/")
    made = desk.make_run_directory(name, RunId(name))
    assert os.path.realpath(made).startswith(f"{tmp_path}/runs/")
    desk.forget(name)
    assert desk.find_run(name, RunId(name)) is None
    assert tmp_path.is_dir()


def test_what_cannot_be_written_is_said_with_its_path(tmp_path):
    (tmp_path / "issues").write_text("in the way")
    (tmp_path / "runs").write_text("in the way")
    desk = StateDesk(tmp_path)
    for act in (
        lambda: desk.write_issue(ISSUE),
        lambda: desk.write_feedback("AR-1", "x"),
        lambda: desk.make_run_directory("AR-1", RUN),
    ):
        with pytest.raises(WorkspaceFailed, match=str(tmp_path)):
            act()


def test_forgetting_an_issue_removes_its_files_and_no_others(desk, place, tmp_path):
    desk.write_issue(ISSUE)
    desk.write_issue(Issue(key="AR-2", title="t"))
    desk.forget("AR-1")
    assert [path.name for path in (tmp_path / "issues").iterdir()] == ["AR-2"]
    assert list((tmp_path / "runs").iterdir()) == []
    desk.forget("AR-1")


# --------------------------------------------------------------------------------------- what runs


def test_a_run_is_found_by_issue_and_id(desk, place):
    assert desk.find_run("AR-1", RUN) == place
    assert desk.find_run("AR-1", RunId("other")) is None
    assert desk.find_run("AR-2", RUN) is None
    assert desk.find_run("AR-1", RunId("../" * 9)) is None


def test_how_far_output_was_passed_on_is_remembered(desk, place):
    assert desk.read_followed(place) == 0
    for offset in (10_000_000_000, 7):
        desk.note_followed(place, offset)
        assert desk.read_followed(place) == offset
    for nonsense in (b"", b"x", b"-5\n", b"\xff"):
        Path(place.directory, "followed").write_bytes(nonsense)
        assert desk.read_followed(place) == 0


def test_a_note_is_not_written_through_a_link(desk, place, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    Path(place.directory, "followed").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        desk.note_followed(place, 5)
    assert victim.read_text() == "precious"


# ------------------------------------------------------------------------------------- what is read


def test_the_tail_is_the_last_lines(desk, place):
    assert desk.read_tail(place, 5) == []
    write(place, b"one\ntwo\nthree")
    assert desk.read_tail(place, 2) == [(8, "two"), (13, "three")]


def test_reading_goes_on_where_it_ended_line_by_line(desk, place):
    assert desk.read_from(place, 0, to_the_end=True) == []
    write(place, b"one\ntwo\nthr")
    first = desk.read_from(place, 0, to_the_end=False)
    assert first == [(4, "one"), (8, "two")]
    assert desk.read_from(place, 8, to_the_end=False) == []
    write(place, b"ee\nend")
    assert desk.read_from(place, 8, to_the_end=False) == [(14, "three")]
    assert desk.read_from(place, 14, to_the_end=True) == [(17, "end")]
    assert desk.read_from(place, 17, to_the_end=True) == []
    assert desk.read_from(place, 99, to_the_end=True) == []


@pytest.mark.parametrize("newlines", [False, True])
def test_reading_is_bounded_and_always_goes_on(desk, place, newlines):
    total = 3 * MAX_READ_BYTES + 5
    write(place, (b"y\n" if newlines else b"yy") * (total // 2))
    offset, read = 0, 0
    while lines := desk.read_from(place, offset, to_the_end=True):
        length = sum(len(text) + newlines for text in texts(lines))
        assert length <= MAX_READ_BYTES
        offset, read = lines[-1][0], read + length
    assert read == total // 2 * 2


def test_a_freed_part_is_passed_over_with_a_word(desk, place):
    write(place, b"old line\n" * 100_000 + b"kept\n")
    size = 900_005
    punch = ["fallocate", "--punch-hole", "--offset", "0", "--length", "819200"]
    subprocess.run([*punch, f"{place.directory}/output"], check=True)
    lines = desk.read_from(place, 9, to_the_end=False)
    assert lines[0] == (819200, "… [skipped: 819191 bytes, no longer kept]")
    assert lines[-1] == (size, "kept")
    assert not any("\0" in text for text in texts(lines))


@pytest.mark.parametrize("what", ["pipe", "link", "directory"])
def test_what_an_agent_put_in_place_of_its_output_is_not_read(desk, place, what, tmp_path):
    path = Path(place.directory, "output")
    (tmp_path / "secret").write_text("secret\n")
    {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(tmp_path / "secret"),
        "directory": path.mkdir,
    }[what]()
    assert desk.read_from(place, 0, to_the_end=True) == []
    assert desk.read_tail(place, 5) == []


def test_bytes_that_are_no_text_are_replaced(desk, place):
    write(place, b"\xff\xfe\n\0\n")
    assert texts(desk.read_from(place, 0, to_the_end=False)) == ["\ufffd\ufffd", "\0"]
