"""An agent program that behaves as its arguments say, one step after the other, then exits 0.

say:TEXT      print a line                          print:N     print N bytes without a newline
exit:N        exit with N                           sleep       sleep until a signal ends it
die:TERM      die of a signal                       count:FILE  print 0, 1, 2... until FILE exists
spin:S        use S seconds of CPU                  close       close every descriptor
tick          a child that prints without end       await:FILE  wait until there is a file
ignore:TERM   ignore a signal                       on-term:N   exit with N on SIGTERM
last-words:T  on SIGTERM print T twenty times, taking its time; then exit 0
child:N       N children, sleeping                  deep:N      a chain of N processes, sleeping
setsid        a child in a session of its own       double-fork a daemonised grandchild
escape        `env -i setsid -f sleep 600`          bare-child  a child with an empty environment
storm:N       N lines of processes that fork, live for a moment and die, for 20 s
stop          stop itself (SIGSTOP)                 name:X      change its name
subgroup:X    a child in a cgroup of its own, below ours
exec:PROGRAM  become `PROGRAM 600`
Children that sleep have done so before the next step begins; they ignore what it ignores.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

PR_SET_NAME = 15
COUNT_S = 0.02
LAST_WORDS = 20
STORM_PAUSE_S = 0.1
"""How long a storm's process lives before it forks: long enough to be seen and signalled."""
STORM_S = 20
"""A storm that nobody could end is over by itself."""


def rest() -> None:
    # A handler in Python is not run for a signal that comes right before `pause` begins.
    handled = callable(signal.getsignal(signal.SIGTERM))
    while True:
        time.sleep(0.05) if handled else signal.pause()


def fork(child: Callable[[], None]) -> int:
    """Start a child; return once it has called `child`, which must come to rest by itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.set_inheritable(writer, False)
        child()
        os.write(writer, b"!")
        os.close(writer)
        rest()
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    return pid


def deepen(levels: int) -> None:
    if levels > 0:
        fork(lambda: deepen(levels - 1))


def daemonise() -> None:
    middle = os.fork()
    if middle == 0:
        os.setsid()
        fork(lambda: None)
        os._exit(0)
    os.waitpid(middle, 0)


def escape() -> None:
    middle = os.fork()
    if middle == 0:
        words = ["env", "-i", "setsid", "-f", "/bin/sleep", "600"]
        os.execvp(words[0], words)
    os.waitpid(middle, 0)


def storm(lines: int) -> None:
    end = time.monotonic() + STORM_S
    for _ in range(lines):
        if os.fork() == 0:
            while time.monotonic() < end:
                time.sleep(STORM_PAUSE_S)
                if os.fork() > 0:
                    time.sleep(3 * STORM_PAUSE_S)
                    break
            os._exit(0)


def enter_subgroup(name: str) -> None:
    own = next(
        line for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"
    )
    mount = next(
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup2 " in line
    )
    group = Path(mount + own[3:]) / name
    group.mkdir()
    (group / "cgroup.procs").write_text("0")


def speak_at_death(text: str) -> None:
    def speak(*_signal: object) -> None:
        for _ in range(LAST_WORDS):
            os.write(1, text.encode() + b"\n")
            time.sleep(0.01)
        os._exit(0)

    signal.signal(signal.SIGTERM, speak)


def tick() -> None:
    if os.fork() == 0:
        while True:
            os.write(1, b"tick\n")
            time.sleep(0.005)


def wait_for(file: str) -> None:
    while not Path(file).exists():
        time.sleep(0.005)


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # after `close`
        os.write(1, text.encode() + b"\n")


def count(path: str) -> None:
    for number in itertools.count():
        say(f"line {number}")
        if Path(path).exists():
            return
        time.sleep(COUNT_S)


def die(name: str) -> None:
    number = signal.Signals[f"SIG{name}"]
    if number is not signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def spin(seconds: float) -> None:
    while time.process_time() < seconds:
        pass


STEPS: dict[str, Callable[[str], object]] = {
    "say": say,
    "count": count,
    "die": die,
    "print": lambda n: (
        [os.write(1, b"x" * 65536) for _ in range(int(n) // 65536)]
        + [os.write(1, b"x" * (int(n) % 65536))]
    ),
    "exit": lambda n: os._exit(int(n)),
    "sleep": lambda _: rest(),
    "spin": lambda s: spin(float(s)),
    "tick": lambda _: tick(),
    "await": wait_for,
    "close": lambda _: os.closerange(0, 256),
    "ignore": lambda name: signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_IGN),
    "on-term": lambda n: signal.signal(signal.SIGTERM, lambda *_: os._exit(int(n))),
    "last-words": speak_at_death,
    "child": lambda n: [fork(lambda: None) for _ in range(int(n))],
    "deep": lambda n: deepen(int(n)),
    "setsid": lambda _: fork(os.setsid),
    "double-fork": lambda _: daemonise(),
    "escape": lambda _: escape(),
    "bare-child": lambda _: fork(lambda: os.execve("/bin/sleep", ["sleep", "600"], {})),
    "storm": lambda n: storm(int(n)),
    "stop": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "name": lambda name: ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0),
    "subgroup": lambda name: fork(lambda: enter_subgroup(name)),
    "exec": lambda program: os.execvp(program, [program, "600"]),
}


def main() -> None:
    sys.setrecursionlimit(100_000)
    for word in sys.argv[1:]:
        step, _, argument = word.partition(":")
        STEPS[step](argument)


if __name__ == "__main__":
    main()
