"""The heartbeat on disk: whole or not at all."""

import os
import threading

import pytest

from factoryd.adapters.heartbeat_file import AtomicHeartbeatFile
from factoryd.core.heartbeat import Heartbeat
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
