"""The agents that are started, and how a process is known to be one of theirs."""

import os
from dataclasses import dataclass
from pathlib import Path

NAP_S = "603141"
"""What an agent's processes do: they sleep for so long and the agent's number of microseconds."""

TREE = 22
"""Processes of the tree that is to be stopped."""


@dataclass(frozen=True)
class Agent:
    """A program to be supervised: a text for `sh`, which gets it as a file."""

    number: int
    script: str

    @property
    def name(self) -> str:
        """Return what a supervisor calls it."""
        return f"agent-{self.number}"


def nap(number: int) -> str:
    """Return the command that nothing but an agent's process is."""
    return f"sleep {NAP_S}.{number:06}"


def say(word: str, number: int) -> str:
    """Return the shell command that reports to the measurement. See `bench.words.Words`.

    A builtin of the shell in a single write, so it costs no process.
    """
    return f"echo {word} {number} >WORDS"


def pair(number: int) -> Agent:
    """Return an agent of two processes, which do nothing."""
    return Agent(number, f"{nap(number)} &\n{say('up', number)}\nwait")


def pair_or_stubborn(number: int) -> Agent:
    """Return the same, but every tenth ignores SIGTERM with both of its processes."""
    agent = pair(number)
    return Agent(number, f"trap '' TERM\n{agent.script}") if number % 10 == 0 else agent


def tree(number: int) -> Agent:
    """Return an agent of 22 processes, one a grandchild that is a daemon of its own session."""
    lines = [f"{nap(number)} &" for _ in range(TREE - 2)]
    daemon = f"(setsid {nap(number)} &)"
    return Agent(number, "\n".join([*lines, daemon, say("up", number), f"exec {nap(number)}"]))


def brief(number: int, seconds: float) -> Agent:
    """Return an agent that fails after a while, and says when it was there and when it left."""
    words = [say("up", number), f"sleep {seconds}", say("end", number), "exit 1"]
    return Agent(number, "\n".join(words))


def number_of(argv: list[str]) -> int | None:
    """Return whose nap a command line is, None for any other."""
    if len(argv) != 2 or argv[0] != "sleep" or not argv[1].startswith(f"{NAP_S}."):
        return None
    return int(argv[1].partition(".")[2])


def is_agent(argv: list[str]) -> bool:
    """Say whether a command line is an agent's: a nap, a writer, or the shell with its script."""
    if number_of(argv) is not None or any(word.endswith("/writer.py") for word in argv):
        return True
    return len(argv) == 2 and Path(argv[0]).name == "sh"


def argv_of(pid: int) -> list[str]:
    """Return the command line of a process; of one that has ended there is none."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.split(b"\0")[:-1]]
