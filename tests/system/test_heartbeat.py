"""The heartbeat file and health, on real daemons: what the file promises, and when."""

import json
from signal import SIGCONT, SIGKILL, SIGTERM

import pytest
import trio

from factoryctl.offline import judge
from factoryd.wire.heartbeat import parse_heartbeat
from tests.system.daemons import WITHIN_S, a_place, play
from tests.system.test_reap import KEY, a_factory, ctl, hung, killed

pytestmark = pytest.mark.system


def lively(grace, stale_after="2500ms"):
    return f'grace = "{grace}"\n[heartbeat]\nstale_after = "{stale_after}"'


PATIENT = 'grace = "60s"\n[heartbeat]\ninterval = "200ms"'
HELD = "exec $PYTHON $AGENT ignore:TERM say:up await:../go"
"""An agent that ends when it is let go and not before."""

BEATS = 10
"""After so many beats of a daemon that waits for its agent, that is let go."""


async def watch(daemon, status, until):
    """Look at the heartbeat again and again until something holds: it goes on beating till then."""
    place, seen = daemon.place, set()
    with trio.fail_after(WITHIN_S):
        while True:
            verdict, beat = judge(str(place.socket)), read_beat(place)
            if until():
                break
            assert verdict is not None, "it is gone"
            assert verdict.fresh, verdict.reason
            assert (verdict.pid, beat.status) == (daemon.pid, status)
            seen.add(beat.progress)
            if len(seen) == BEATS:
                (place.root / "go").touch()
            await trio.sleep(0.01)
    assert len(seen) >= BEATS, seen


def read_beat(place):
    try:
        return parse_heartbeat((place.runtime / "heartbeat").read_bytes())
    except FileNotFoundError:
        return None


# ------------------------------------------------------------------------------------------- when


async def test_the_heartbeat_is_fresh_through_a_long_recovery_and_written_before_any_source_starts():
    with a_factory(stop=PATIENT) as place:
        place.put(KEY, HELD)
        async with place.daemon() as daemon:
            await killed(daemon, KEY)
        for ledger in place.state.glob("ledger.sqlite*"):
            ledger.unlink()  # the tree is a stray now, and waited for
        for made in ("active", "done", "failed", "cancelled"):
            for file in (place.root / "issues" / made).iterdir():
                file.unlink()
            (place.root / "issues" / made).rmdir()
        (place.runtime / "heartbeat").unlink()
        daemon = await place.start()
        try:
            await place.wait_for((place.runtime / "heartbeat").exists)
            assert not (place.root / "issues" / "active").exists()
            sources = place.root / "issues" / "active"
            await watch(daemon, "starting", sources.exists)
            assert place.survivors() == []
            assert await daemon.call("Health")
            assert await daemon.stop() == 0
        finally:
            with trio.CancelScope(shield=True):
                daemon.process.kill()
                await daemon.process.wait()


async def test_the_heartbeat_is_fresh_and_says_stopping_through_a_long_teardown():
    with a_factory(stop=PATIENT) as place:
        place.put(KEY, HELD)
        async with place.daemon() as daemon:
            await daemon.wait_running(KEY)
            daemon.signal(SIGTERM)
            heartbeat = place.runtime / "heartbeat"
            await place.wait_for(lambda: b'"stopping"' in heartbeat.read_bytes())
            assert place.survivors() != []
            await watch(daemon, "stopping", lambda: place.survivors() == [])
            assert await daemon.wait() == 0
            assert not heartbeat.exists()


COPY_AT_TERM = """
trap 'read -r beat <../r/heartbeat || :; echo "$beat" >../at-term; exit 0' TERM
echo up
while :; do sleep 0.05 || :; done
"""
"""It outlives its sleep, which is signalled first; what the trap runs has no process of its own."""


async def test_stopping_is_written_before_the_first_agent_is_stopped():
    with a_factory(stop=lively("10s")) as place:
        place.put(KEY, COPY_AT_TERM)
        async with place.daemon() as daemon:
            await daemon.wait_running(KEY)
            await daemon.stop()
        assert parse_heartbeat((place.root / "at-term").read_bytes()).status == "stopping"


async def test_a_daemon_that_gives_no_beat_hangs_and_one_that_goes_on_does_not():
    with a_factory(stop=lively("300ms", stale_after="400ms")) as place:
        async with place.daemon() as daemon:
            await hung(daemon)
            daemon.process.send_signal(SIGCONT)
            await place.wait_for(lambda: (one := judge(str(place.socket))) and one.fresh)
            assert (await ctl(place, "health")).returncode == 0


# ------------------------------------------------------------- when everything else is broken


BROKEN = ["configuration", "agents", "source", "ledger"]


def spoil(place, what):
    match what:
        case "configuration":
            place.config.write_text("[[[")
        case "agents":
            text = place.config.read_text().replace('"/bin/sh", "-eu"', '"./no-such-agent"')
            place.config.write_text(text)
        case "source":
            (place.root / "issues").rename(place.root / "lost")
        case _:
            for file in place.state.glob("ledger.sqlite*"):
                file.unlink()


@pytest.mark.parametrize("what", BROKEN)
async def test_health_shutdown_and_reap_orphans_work_with_everything_else_broken(what):
    with a_factory(stop='[protect]\ncommands = ["no-such-command"]') as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            await daemon.wait_running(KEY)
            spoil(place, what)
            health = await ctl(place, "health", "--json")
            assert health.returncode in {0, 5}, health.stderr
            assert json.loads(health.stdout)["pid"] == daemon.pid
            reaped = await ctl(place, "reap-orphans", "--json")
            assert (reaped.returncode, json.loads(reaped.stdout)["daemon"]) == (0, "alive")
            stopped = await ctl(place, "shutdown", "--json")
            assert "Traceback" not in stopped.stderr
            assert json.loads(stopped.stdout)["pid"] == daemon.pid
            await daemon.wait()
            assert place.survivors() == []
        assert (await ctl(place, "health")).returncode == 3
        assert (await ctl(place, "shutdown")).returncode == 3
        assert (await ctl(place, "reap-orphans")).returncode == 0


# ------------------------------------------------------------------- shutdown without an answer


async def test_shutdown_ends_a_daemon_whose_socket_is_lost_by_a_verified_signal():
    with a_factory() as place:
        place.put(KEY, play())
        async with place.daemon() as daemon:
            await daemon.wait_running(KEY)
            place.socket.unlink()
            done = await ctl(place, "shutdown", "--json")
            assert (done.returncode, json.loads(done.stdout)) == (
                0,
                {"pid": daemon.pid, "stopped": True},
            )
            assert "was told to stop by SIGTERM instead" in done.stderr
            assert await daemon.wait() == 0
            assert place.survivors() == []


async def test_shutdown_signals_nobody_whose_heartbeat_is_stale():
    with a_factory(stop=lively("300ms", stale_after="400ms")) as place:
        async with place.daemon() as daemon:
            await hung(daemon)
            place.socket.unlink()
            done = await ctl(place, "shutdown")
            assert done.returncode == 5
            assert "factoryd reap --force" in done.stderr
            daemon.process.send_signal(SIGCONT)  # a signal would be delivered now
            await place.wait_for(lambda: (one := judge(str(place.socket))) and one.fresh)
            assert daemon.process.poll() is None
            daemon.signal(SIGTERM)
            assert await daemon.wait() == 0


async def test_shutdown_signals_nobody_whom_the_heartbeat_does_not_prove():
    with a_place() as place:
        async with place.daemon() as daemon:
            heartbeat = place.runtime / "heartbeat"
            beat = json.loads(heartbeat.read_bytes())
            daemon.signal(SIGKILL)
            await daemon.wait()
        bystander = await trio.lowlevel.open_process(["sleep", "600"])
        try:
            heartbeat.write_text(json.dumps({**beat, "pid": bystander.pid}))
            done = await ctl(place, "shutdown")
            assert done.returncode == 3
            assert bystander.poll() is None
        finally:
            bystander.kill()
            await bystander.wait()
