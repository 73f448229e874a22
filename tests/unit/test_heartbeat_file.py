"""The heartbeat on disk: whole or not at all."""

import os
import threading
import time

import msgspec
import pytest
from msgspec.structs import replace

from factoryd.adapters.heartbeat_file import AtomicHeartbeatFile, read_heartbeat, read_living
from factoryd.adapters.pidfd import identify
from factoryd.core.heartbeat import Heartbeat
from factoryd.core.liveness import Doubtful
from factoryd.wire.heartbeat import parse_heartbeat

BEAT = Heartbeat(
    pid=7,
    start_ticks=8,
    boot_id="b",
    status="running",
    progress=1,
    interval_s=15.0,
    stale_after_s=60.0,
    wall=1e9,
    boottime=5.0,
)


def test_what_is_written_is_read_by_those_outside(tmp_path):
    path = tmp_path / "heartbeat"
    AtomicHeartbeatFile(path).write(BEAT)
    assert parse_heartbeat(path.read_bytes()) == BEAT
    assert [path] == list(tmp_path.iterdir())


def test_it_is_for_all_to_read_and_for_us_to_write_whatever_the_umask(tmp_path):
    path = tmp_path / "heartbeat"
    for umask in (0o077, 0o000):
        before = os.umask(umask)
        try:
            AtomicHeartbeatFile(path).write(BEAT)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o644


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "heartbeat"
    file, stop = AtomicHeartbeatFile(path), threading.Event()
    file.write(BEAT)

    def beat():
        while not stop.is_set():
            file.write(BEAT)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        for _ in range(2000):
            assert parse_heartbeat(path.read_bytes()) == BEAT
    finally:
        stop.set()
        beating.join()


def test_a_link_put_in_its_way_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".heartbeat.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        AtomicHeartbeatFile(tmp_path / "heartbeat").write(BEAT)
    assert victim.read_text() == "precious"


def test_it_can_be_taken_away_and_again(tmp_path):
    file = AtomicHeartbeatFile(tmp_path / "heartbeat")
    file.write(BEAT)
    file.remove()
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        AtomicHeartbeatFile(tmp_path / "nowhere" / "heartbeat").write(BEAT)


# ---------------------------------------------------------------------------- read by the reaper


def mine(**changes):
    identity = identify(os.getpid())
    assert identity is not None
    fields = {
        "pid": identity.pid,
        "start_ticks": identity.start_ticks,
        "boot_id": identity.boot_id,
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
    }
    return replace(BEAT, **{**fields, **changes})


def test_a_heartbeat_of_a_living_process_is_read_as_it_was_written(tmp_path):
    path, beat = tmp_path / "heartbeat", mine()
    AtomicHeartbeatFile(path).write(beat)
    assert read_living(path) == read_heartbeat(path) == beat


def test_a_jump_of_the_wall_clock_changes_nothing_for_the_reaper(tmp_path):
    path = tmp_path / "heartbeat"
    for wall in (0.0, 1e12):
        AtomicHeartbeatFile(path).write(mine(wall=wall))
        assert isinstance(read_living(path), Heartbeat)


def test_a_heartbeat_whose_process_has_ended_still_says_what_it_was_doing(tmp_path):
    path, beat = tmp_path / "heartbeat", mine(start_ticks=1, status="stopping")
    AtomicHeartbeatFile(path).write(beat)
    assert read_heartbeat(path) == beat
    assert isinstance(read_living(path), Doubtful)


LIES = {
    "nothing": None,
    "empty": b"",
    "torn": b'{"pid": 7, "start_',
    "NaN": msgspec.json.encode(BEAT).replace(b"60.0", b"NaN"),
    "from the future": msgspec.json.encode(mine(boottime=1e12)),
    "another boot": msgspec.json.encode(mine(boot_id="x")),
    "negative": msgspec.json.encode(mine(boottime=-1.0)),
    "a text for a number": msgspec.json.encode(mine()).replace(b'"progress":1', b'"progress":"1"'),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_what_cannot_be_believed_is_doubtful_with_a_reason(tmp_path, content):
    path = tmp_path / "heartbeat"
    if content is not None:
        path.write_bytes(content)
    for read in (read_heartbeat, read_living):
        doubtful = read(path)
        assert isinstance(doubtful, Doubtful)
        assert doubtful.reason


def test_a_heartbeat_that_is_a_directory_is_doubtful(tmp_path):
    (tmp_path / "heartbeat").mkdir()
    assert isinstance(read_living(tmp_path / "heartbeat"), Doubtful)
