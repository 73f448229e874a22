"""Check: a process that the kernel does not let die is handed off, and cleared once it has died."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm.guest.daemons import a_daemon
from tests.vm.guest.units import processes, run
from tests.vm.guest.waiting import wait_until


def a_process_in_uninterruptible_sleep_is_handed_off_until_it_can_die() -> None:
    with a_frozen_directory() as frozen, a_daemon("frozen") as daemon:
        daemon.put("VM-1", f"echo up; touch {frozen}/file; echo no")
        run_ = daemon.wait_running("VM-1")["run"]
        leaf = daemon.unit.cgroup / "agents" / "VM-1" / run_
        wait_until(lambda: touching(leaf), "nothing sleeps in the kernel")
        killed = daemon.factoryctl("--json", "kill", "VM-1")
        assert killed.returncode == 7, killed
        report = json.loads(killed.stdout.splitlines()[-1])
        assert (report["survivors"], report["emptied"]) == (1, False), report
        assert [one["reason"] for one in report["skipped"]] == ["uninterruptible sleep"], report
        (handoff,) = daemon.status()["handoffs"]
        assert (handoff["issue"], handoff["run"]) == ("VM-1", run_), handoff
        assert "uninterruptible sleep" in handoff["reason"], handoff
        assert touching(leaf), "it did die"
        thaw(frozen)
        wait_until(lambda: not daemon.status()["handoffs"], "the handoff is not cleared")
        assert not leaf.exists()
        (cleared,) = daemon.facts("handoff-cleared", "VM-1")
        assert cleared["report"]["emptied"], cleared


@contextmanager
def a_frozen_directory() -> Iterator[Path]:
    """Mount a file system that nobody can write to, for now: whoever tries waits in the kernel."""
    image, directory = Path("/srv/frozen.img"), Path("/srv/frozen.mounted")
    directory.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(directory))
    run("fsfreeze", "--freeze", str(directory))
    try:
        yield directory
    finally:
        thaw(directory)
        run("umount", str(directory), check=False)


def thaw(directory: Path) -> None:
    """Let the file system be written to; once it can be, this does nothing."""
    subprocess.run(["fsfreeze", "--unfreeze", directory], capture_output=True, check=False)


def touching(cgroup: Path) -> bool:
    """Say whether the `touch` of a cgroup is in uninterruptible sleep.

    A shell is in such a sleep, too, until what it starts has begun.
    """
    return any(
        "(touch) D" in Path("/proc", str(pid), "stat").read_text() for pid in processes(cgroup)
    )
