"""The least one can write: starts programs by `subprocess.Popen`, signals their process groups.

Usage: `python popen_loop.py SOCKET SCRIPT...`, where each script is started at once. A line of JSON
over the socket asks: `{"do": "start", "scripts": [...]}`, `count`, `stop` with a script, `stop-all`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

GRACE_S = 2.0

agents: dict[str, subprocess.Popen[bytes]] = {}


def start(scripts: list[str]) -> int:
    """Start programs, one after the other."""
    for script in scripts:
        agents[script] = subprocess.Popen(
            ["sh", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
    return len(scripts)


def stop(scripts: list[str]) -> int:
    """Ask process groups to end, then force them; return how many first processes ended."""
    ending = [agents.pop(script) for script in scripts]
    for agent in ending:
        os.killpg(agent.pid, signal.SIGTERM)  # not waited for yet: the group is ours
    until = time.monotonic() + GRACE_S
    for agent in ending:
        try:
            agent.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
    return len(ending)


def answer(request: dict[str, object]) -> int:
    """Do what a request asks for."""
    match request:
        case {"do": "start", "scripts": list(scripts)}:
            return start(scripts)
        case {"do": "stop", "script": str(script)}:
            return stop([script])
        case {"do": "stop-all"}:
            return stop(list(agents))
        case _:
            return sum(agent.poll() is None for agent in agents.values())


def main() -> None:
    """Serve one connection after the other."""
    path, *scripts = sys.argv[1:]
    start(scripts)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rwb") as lines:
                for line in lines:
                    lines.write(b"%d\n" % answer(json.loads(line)))
                    lines.flush()


if __name__ == "__main__":
    main()
