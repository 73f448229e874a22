"""A program that lets another process take a recorded pid, then stops the tree of the record.

    unshare --pid --fork --mount-proc recycler.py CGROUP

CGROUP is where the record says that the run's leaf was; it is not there. Prints as JSON the record,
the report, and what the process that took the pid over has of signals afterwards (proc(5),
`SigPnd` and `ShdPnd`): it blocks all of them, so any that was sent stays to be seen.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import trio

from factoryd.adapters.pidfd import identify
from factoryd.adapters.subreaper import adopt
from factoryd.adapters.sweep import Sweeper
from factoryd.core.model import (
    Data,
    Exit,
    ProcessIdentity,
    RunId,
    StopPolicy,
    StopReport,
    TreePlace,
)

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
MOST_FORKS = 100_000


class Seen(Data, frozen=True, kw_only=True):
    recorded: ProcessIdentity
    taken: ProcessIdentity
    exit: Exit
    report: StopReport
    pending: tuple[str, ...]
    state: str


def start_deaf() -> int:
    """Start a process that blocks every signal; return its pid."""
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.execv("/bin/sleep", ["sleep", "600"])
    return pid


def take(pid: int) -> int:
    """Start deaf processes until one has this pid, and keep only that."""
    for _ in range(MOST_FORKS):
        LAST_PID.write_text(str(pid - 1))
        found = start_deaf()
        if found == pid:
            return found
        end(found)
    raise AssertionError(f"nobody got pid {pid}")


def end(pid: int) -> None:
    signal.pidfd_send_signal(fd := os.pidfd_open(pid), signal.SIGKILL)
    os.close(fd)
    os.waitpid(pid, 0)


def read_signals(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def stop(cgroup: str, identity: ProcessIdentity) -> tuple[Exit, StopReport]:
    place = TreePlace(
        run=RunId("recycled"), issue="AR-1", agent="a", directory="/none", cgroup=cgroup or None
    )
    tree = await adopt(Sweeper("recycled"), place, identity)
    exit_ = await tree.wait_exit()
    with trio.move_on_after(1):
        await tree.terminate(StopPolicy())
    return exit_, await tree.kill(StopPolicy())


def main() -> None:
    first = subprocess.Popen(["/bin/sleep", "600"])
    recorded = identify(first.pid)
    assert recorded is not None
    first.kill()
    first.wait()
    ticks_s = 1 / os.sysconf("SC_CLK_TCK")
    time.sleep(2 * ticks_s)  # no pid comes round again within a tick, save by force as here
    taken = identify(take(first.pid))
    assert taken is not None
    exit_, report = trio.run(stop, sys.argv[1], recorded)
    status = read_signals(taken.pid)
    seen = Seen(
        recorded=recorded,
        taken=taken,
        exit=exit_,
        report=report,
        pending=(status["SigPnd"], status["ShdPnd"]),
        state=status["State"][:1],
    )
    sys.stdout.write(msgspec.json.encode(seen).decode())
    sys.stdout.flush()
    end(taken.pid)


if __name__ == "__main__":
    main()
