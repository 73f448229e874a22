"""Where one supervisor works: a directory, a cgroup in which nothing it starts can be lost, words."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from bench.agents import Agent, argv_of, is_agent, number_of
from bench.groups import ENTER, end_group
from bench.watched import Watched
from bench.words import Words
from factoryd.adapters.cgroup import cgroup_of

ROOM_BYTES = 3_000_000_000

_numbers = count(1)


class Ground:
    """What a supervisor and its agents have for themselves.

    `root` is its directory as we see it, `inside` as the supervisor does. `group` is the cgroup of
    all that it starts: whoever leaves a process behind leaves it in there.
    """

    def __init__(self, root: Path, inside: Path, group: Path, words: Words) -> None:
        self.root = root
        self.inside = inside
        self.group = group
        self.words = words
        self.environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(inside),
            "LANG": "C.UTF-8",
        }
        self._children: list[subprocess.Popen[bytes]] = []
        (root / "agents").mkdir()

    def script(self, agent: Agent) -> str:
        """Return what an agent runs, with the pipe it reports to."""
        return agent.script.replace("WORDS", str(self.inside / "words"))

    def put(self, agents: Iterable[Agent]) -> list[str]:
        """Write the agents' files and return each one's as the supervisor finds it."""
        files = []
        for agent in agents:
            name = f"agents/{agent.name}.sh"
            (self.root / name).write_text(f"{self.script(agent)}\n")
            files.append(str(self.inside / name))
        return files

    def start(
        self, command: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in the cgroup, in a session of its own; what it says goes into a file."""
        with (self.root / "log").open("ab") as log:
            child = subprocess.Popen(
                [*ENTER, str(self.group / "cgroup.procs"), *command],
                cwd=self.root,
                env={**self.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def run(self, command: Sequence[str], environ: Mapping[str, str] | None = None) -> str:
        """Run a program to its end as `start` does and return what it prints."""
        done = subprocess.run(
            [*ENTER, str(self.group / "cgroup.procs"), *command],
            cwd=self.root,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def pids(self) -> Iterator[int]:
        """Yield all that runs here."""
        for directory, _, _ in os.walk(self.group):
            try:
                text = Path(directory, "cgroup.procs").read_text()
            except OSError:  # removed while we look
                continue
            yield from map(int, text.split())

    def agent_pids(self) -> list[int]:
        """Return all processes of agents."""
        return [pid for pid in self.pids() if is_agent(argv_of(pid))]

    def other_pids(self) -> list[int]:
        """Return all processes that are no agent's: those of the supervisor and its helpers."""
        return [pid for pid in self.pids() if (argv := argv_of(pid)) and not is_agent(argv)]

    def end_agents(self) -> int:
        """Kill all processes of agents, whoever they belong to; return how many there were."""
        ended = 0
        while pids := self.agent_pids():
            with Watched(pids) as left:
                left.kill()
                left.wait(5)
            ended += len(pids)
        return ended

    def end(self) -> None:
        """Kill everything that is left here, supervisor and all."""
        end_group(self.group)
        for child in self._children:
            child.wait()

    def naps(self) -> dict[int, list[int]]:
        """Return the processes that do an agent's work, by its number."""
        found: dict[int, list[int]] = {}
        for pid in self.pids():
            number = number_of(argv_of(pid))
            if number is not None:
                found.setdefault(number, []).append(pid)
        return found


@contextmanager
def a_ground() -> Iterator[Ground]:
    """Make a place for a supervisor; whatever is left in it is killed with its cgroup.

    The directory is in memory where there is such a place, so that no figure is the disk's.
    """
    own = cgroup_of(os.getpid())
    assert own is not None, "there is no cgroup2 file system here"
    root = Path(tempfile.mkdtemp(prefix="fb-", dir=_memory()))
    group = Path(own, f"bench-{os.getpid()}-{next(_numbers)}")
    group.mkdir()
    try:
        with Words(root / "words") as words:
            ground = Ground(root, root, group, words)
            try:
                yield ground
            finally:
                ground.end()
    finally:
        end_group(group)
        shutil.rmtree(root)


def _memory() -> Path | None:
    """Return where files are in memory, with room for all that agents write."""
    shm = Path("/dev/shm")
    has_room = os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > ROOM_BYTES
    return shm if has_room else None


def wait_for(path: Path, *, within_s: float = 30) -> None:
    """Return once a file is there; raise `TimeoutError` when it is not in time."""
    until = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"no {path}")
        time.sleep(0.005)
