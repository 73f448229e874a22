"""What the heartbeat file proves about a daemon that does not answer."""

import os
import time
from pathlib import Path

import msgspec
import pytest
import trio

from factoryctl.offline import judge

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def beat(**changes):
    fields = {
        "pid": os.getpid(),
        "start_ticks": start_ticks(os.getpid()),
        "boot_id": BOOT_ID,
        "status": "running",
        "progress": 7,
        "interval_s": 15.0,
        "stale_after_s": 60.0,
        "wall": 1_770_000_000.0,
        "boottime": time.clock_gettime(time.CLOCK_BOOTTIME),
    }
    return {**fields, **changes}


@pytest.fixture
def judged(tmp_path):
    def judge_file(content):
        raw = content if isinstance(content, bytes) else msgspec.json.encode(content)
        (tmp_path / "heartbeat").write_bytes(raw)
        verdict = judge(str(tmp_path / "control.sock"))
        assert verdict is not None
        return verdict

    return judge_file


def test_a_fresh_heartbeat_of_a_living_process_is_a_daemon_that_hangs(judged):
    verdict = judged(beat())
    assert (verdict.state, verdict.fresh, verdict.pid) == ("hung", True, os.getpid())
    assert verdict.heartbeat_age_s is not None
    assert 0 <= verdict.heartbeat_age_s < 60


def test_a_stale_heartbeat_of_a_living_process_is_a_daemon_that_hangs(judged):
    old = time.clock_gettime(time.CLOCK_BOOTTIME) - 0.5
    verdict = judged(beat(boottime=old, stale_after_s=0.5))
    assert (verdict.state, verdict.fresh) == ("hung", False)
    assert "hangs" in verdict.reason


@pytest.mark.parametrize("status", ["starting", "stopping"])
def test_a_daemon_that_starts_or_stops_is_not_said_to_hang(judged, status):
    assert judged(beat(status=status)).state == status
    assert judged(beat(status=status, stale_after_s=0.0)).state == "hung"


def test_a_jump_of_the_wall_clock_changes_nothing(judged):
    assert judged(beat(wall=0.0)).fresh
    assert judged(beat(wall=99_999_999_999.0)).fresh


LIES = {
    "empty": b"",
    "torn": msgspec.json.encode(beat())[:-9],
    "not JSON": b"\xff\xfe garbage",
    "not an object": b"[1, 2]",
    "a member missing": {name: value for name, value in beat().items() if name != "boottime"},
    "NaN": msgspec.json.encode(beat(stale_after_s="?")).replace(b'"?"', b"NaN"),
    "infinite": msgspec.json.encode(beat(stale_after_s="?")).replace(b'"?"', b"1e999"),
    "a text for a number": beat(pid=str(os.getpid())),
    "a truth for a number": beat(progress=True),
    "null": beat(boottime=None),
    "from the future": beat(boottime=1e12),
    "negative boot time": beat(boottime=-1.0),
    "negative wall time": beat(wall=-1.0),
    "negative progress": beat(progress=-1),
    "negative patience": beat(stale_after_s=-1.0),
    "no process": beat(pid=0),
    "another boot": beat(boot_id="0e0e0e0e-0000-0000-0000-000000000000"),
    "a recycled pid": beat(start_ticks=start_ticks(os.getpid()) + 1),
    "an unknown status": beat(status="fine"),
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES)
def test_what_cannot_be_believed_is_never_alive(judged, content):
    verdict = judged(content)
    assert (verdict.state, verdict.fresh, verdict.pid) == ("not-running", False, None)
    assert verdict.reason.startswith("factoryd is not running: ")


async def test_the_heartbeat_of_a_process_that_has_ended_is_not_alive(judged):
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, ["sleep", "600"])
        dead = beat(pid=process.pid, start_ticks=start_ticks(process.pid))
        assert judged(dead).fresh
        nursery.cancel_scope.cancel()
    assert judged(dead).state == "not-running"


async def test_a_process_that_has_ended_and_is_not_yet_reaped_is_not_alive(judged):
    process = await trio.lowlevel.open_process(["sleep", "600"])
    dead = beat(pid=process.pid, start_ticks=start_ticks(process.pid))
    process.kill()
    wait = os.WEXITED | os.WNOWAIT
    await trio.to_thread.run_sync(os.waitid, os.P_PID, process.pid, wait)
    assert judged(dead).state == "not-running"
    await process.wait()


def test_a_directory_without_a_heartbeat_proves_nothing(tmp_path):
    assert judge(str(tmp_path / "control.sock")) is None


def test_a_heartbeat_that_is_a_directory_is_not_alive(tmp_path):
    (tmp_path / "heartbeat").mkdir()
    verdict = judge(str(tmp_path / "control.sock"))
    assert verdict is not None
    assert verdict.state == "not-running"
