"""What agents of a real daemon may use, and what is kept of what they used."""

import json
import os
import resource
import shutil
from contextlib import contextmanager

import pytest

from factoryd.adapters.launch import SHIM
from tests.system.daemons import a_daemon, a_place, connect

pytestmark = pytest.mark.system

NO_CONTROLLERS = {"factory": 'containment = "subreaper"'}

HOG = """exec $PYTHON -S -E - <<'END'
held = []
try:
    while True:
        held.append(bytearray(8 << 20))
        if len(held) > 64:
            raise SystemExit("half a gigabyte and no end")
except MemoryError:
    count = len(held)
    held.clear()
    print("MemoryError after", count)
    raise SystemExit(3)
END"""


async def facts_of(daemon, kind):
    async with connect(daemon.place.socket) as client:
        replies = [reply async for reply in client.stream_of("Events")]
    facts = [fact for reply in replies for fact in reply["facts"]]
    return [fact["body"] for fact in facts if fact["kind"] == kind]


def output_of(daemon, key):
    (output,) = (daemon.place.state / "runs" / key).glob("*/output")
    return output.read_text()


@contextmanager
def soft_limit_on_files(number):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_greedy_agent_gets_no_more_memory_than_its_limit():
    async with a_daemon(agents='memory_max = "100M"', **NO_CONTROLLERS) as daemon:
        assert (await daemon.status())["daemon"]["controllers"] == []
        daemon.place.put("AR-1", HOG)
        await daemon.wait_issue("AR-1", "parked")
        word, _, count = output_of(daemon, "AR-1").rpartition(" ")
        assert word == "MemoryError after"
        assert 4 <= int(count) <= 12
        (exited,) = await facts_of(daemon, "run-exited")
        assert exited["exit"]["status"] == 3


DROPPED = """
import encodings.utf_8_sig  # this user may not look where it would be imported from later
import os, pathlib, sys
from factoryd import __main__ as program
from factoryd.adapters import launch

user, shim, *arguments = sys.argv[1:]
launch.SHIM = pathlib.Path(shim)
os.setgroups([])
os.setresgid(*[int(user)] * 3)
os.setresuid(*[int(user)] * 3)
sys.exit(program.main(arguments))
"""
"""A daemon of a user that is not root, with a copy of the shim which that user may read."""

FORKS = "trap 'echo no more' EXIT; for n in $(seq 30); do sleep 2 & echo $n; done"


def give_away(place, user):
    """Have a place belong to a user, who runs its daemons."""
    shim = place.root / SHIM.name
    shutil.copy(SHIM, shim)
    for path in (place.root, *place.root.rglob("*")):
        os.chown(path, user, user)
    place.program = ("-c", DROPPED, str(user), str(shim))


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
async def test_a_limit_on_processes_binds_agents_of_a_daemon_that_is_not_root():
    user = 1_000_000_000 + os.getpid()  # nobody's: all that a user has counts
    with a_place(agents="pids_max = 24", **NO_CONTROLLERS) as place:
        give_away(place, user)
        async with place.daemon() as daemon:
            place.put("AR-1", FORKS)
            await daemon.wait_issue("AR-1", "parked")
            *started, refused, last = output_of(daemon, "AR-1").splitlines()
            # The daemon's own threads count too, and come and go.
            assert 1 <= len(started) <= 24
            assert "fork" in refused
            assert last == "no more"


@pytest.mark.skipif(os.getuid() != 0, reason="is root")
async def test_a_limit_on_processes_does_not_bind_root():
    async with a_daemon(agents="pids_max = 6", **NO_CONTROLLERS) as daemon:
        daemon.place.put("AR-1", FORKS)
        await daemon.wait_issue("AR-1", "done")
        assert output_of(daemon, "AR-1").splitlines() == [*map(str, range(1, 31)), "no more"]


async def test_an_agent_of_little_weight_is_nice():
    async with a_daemon(agents="cpu_weight = 10", **NO_CONTROLLERS) as daemon:
        daemon.place.put("AR-1", "nice; cat /proc/self/autogroup || :")
        await daemon.wait_issue("AR-1", "done")
        own = os.getpriority(os.PRIO_PROCESS, 0)
        first, *rest = output_of(daemon, "AR-1").splitlines()
        assert first == str(min(own + 10, 19))
        assert all(line.endswith(f" nice {10}") for line in rest)


async def test_an_agent_has_the_daemons_first_limit_on_open_files_and_not_the_raised_one():
    with a_place() as place, soft_limit_on_files(500):
        async with place.daemon() as daemon:
            soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            assert soft == min(hard, 16384)
            place.put("AR-1", "ulimit -Sn; ulimit -Hn")
            await daemon.wait_issue("AR-1", "done")
            assert output_of(daemon, "AR-1").split() == ["500", str(hard)]


async def test_a_receipt_is_kept_of_every_run():
    async with a_daemon(stop='grace = "10s"') as daemon:
        daemon.place.put("AR-1", "exec $PYTHON $AGENT child:2 spin:0.2 exit:0")
        await daemon.wait_issue("AR-1", "done")
        (emptied,) = await facts_of(daemon, "run-emptied")
        receipt, report = emptied["receipt"], emptied["report"]
        assert receipt["cpu_s"] >= 0.15
        assert receipt["wall_s"] >= 0.2
        assert receipt["oom_kills"] == 0
        assert receipt["peak_processes"] >= 2
        assert receipt["peak_memory_bytes"] > 1 << 20
        assert (report["survivors"], report["signals"]) == (0, ["SIGTERM"]), json.dumps(report)
