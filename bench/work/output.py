"""What it takes to keep the output of agents that write a megabyte a second each."""

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.agents import Agent, nap, say
from bench.ground import a_ground
from bench.peers.factory import Factoryd
from bench.peers.port import Peer
from bench.programs import writer
from bench.results import Key, Results
from bench.sessions import Session
from bench.work.idling import cpu_s, pss_mb
from bench.work.looking import wait_running

WORK = "output"
CPU = "CPU (% of one)"
LAG = "lag (ms)"
LOST = "bytes lost"
LATE = "writers held up (s)"
PSS = "PSS, all helpers (MB)"
PEERS = ("factoryd", "supervisord", "circus", "pm2")
"""Those that have logs of their own; the others leave them to further processes."""

PER_WRITER_S = writer.CHUNK * writer.PER_S

LATEST_S = 30
"""What has not come by then, a while after the last word, is lost."""


def measure(name: str, count: int, seconds: int, results: Results) -> None:
    """Let agents write for so long; what is in the files in the end was kept."""
    with a_ground() as ground:
        peer = _peer(name)(ground)
        peer.up()
        try:
            _measure(Session(peer, ground), count, seconds, results)
        finally:
            peer.down()


def _measure(session: Session, count: int, seconds: int, results: Results) -> None:
    peer, ground = session
    go = ground.root / "go"
    os.mkfifo(go)
    peer.prepare([_agent(number, seconds, go) for number in range(count)])
    peer.launch()
    ground.words.wait("up", count)
    wait_running(session, count)  # what nobody knows yet cannot be followed
    with _Lags(session, seconds * PER_WRITER_S) as lags:
        before, began = _cpu(session), time.perf_counter()
        with go.open("wb"):
            last = ground.words.wait("done", count, within_s=seconds * 10)
        took = last - began
        time.sleep(1)
        used, over = _cpu(session) - before, time.perf_counter() - began
        results.add(Key(WORK, PSS, peer.name, count), sum(map(pss_mb, ground.other_pids())))
        results.add(Key(WORK, CPU, peer.name, count), used / over * 100)
        results.add(Key(WORK, LATE, peer.name, count), max(0, took - seconds))
        results.add(Key(WORK, LAG, peer.name, count), *lags.end())
    kept = sum(file.stat().st_size for file in _files(session))
    written = count * seconds * PER_WRITER_S
    results.add(Key(WORK, LOST, peer.name, count), max(0, written - kept, lags.missing))


def _agent(number: int, seconds: int, go: Path) -> Agent:
    """Return an agent that writes once somebody has opened the named pipe `go` for writing."""
    write = f"{sys.executable} -I -S {Path(writer.__file__)} {seconds}"
    words = [say("up", number), f": <{go}", write, say("done", number), f"exec {nap(number)}"]
    return Agent(number, "\n".join(words))


def _cpu(session: Session) -> float:
    return sum(map(cpu_s, session.ground.other_pids()))


def _files(session: Session) -> list[Path]:
    root = session.ground.root
    return [*root.glob("out-*.log"), *root.glob("st/runs/**/output")]


class _Lags:
    """Follows one agent as it writes, and notes how old each chunk is when it comes."""

    def __init__(self, session: Session, expected: int) -> None:
        follow = _follow_log if session.peer.name == "factoryd" else _follow_file
        self.missing = expected
        """How many bytes have not come yet."""
        self._lags: list[float] = []
        self._overdue = threading.Event()
        self._chunks = follow(session, self._overdue)
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        """Begin to follow; nothing that is written from now on is missed."""
        next(self._chunks)
        self._heard = self._thread.submit(self._note_all)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, whether all has come or not."""
        self._overdue.set()
        self._thread.shutdown()

    def end(self) -> list[float]:
        """Return the lags (ms) once all has come, or nothing more for too long."""
        with suppress(TimeoutError):
            self._heard.result(LATEST_S)
        return self._lags

    def _note_all(self) -> None:
        for lines in self._chunks:
            now = time.monotonic()
            self.missing -= sum(len(line) + 1 for line in lines)
            with suppress(ValueError, IndexError):
                self._lags.append((now - float(lines[-1].split()[0])) * 1000)
            if self.missing <= 0:
                return


def _follow_file(session: Session, overdue: threading.Event) -> Iterator[Sequence[str]]:
    """Yield nothing once the file is open, then what comes."""
    file = session.ground.root / "out-0.log"
    rest = ""
    with file.open() as text:
        yield ()
        while not overdue.is_set():
            *lines, rest = (rest + text.read()).split("\n")
            if lines:
                yield lines
            else:
                time.sleep(0.005)


def _follow_log(session: Session, overdue: threading.Event) -> Iterator[Sequence[str]]:
    """Yield nothing once the daemon has begun, then what it passes on to a client that follows."""
    peer = session.peer
    assert isinstance(peer, Factoryd)
    call = {
        "method": "io.factoryd.Control.Logs",
        "parameters": {"target": "B-0", "follow": True, "lines": 0},
        "more": True,
    }
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(peer.socket))
        client.sendall(json.dumps(call).encode() + b"\0")
        rest = b""
        while not overdue.is_set():
            if not select.select([client], [], [], 0.1)[0]:
                continue
            part = client.recv(1 << 20)
            if not part:
                return
            *answers, rest = (rest + part).split(b"\0")
            for answer in answers:
                yield [line["text"] for line in json.loads(answer)["parameters"]["lines"]]


def _peer(name: str) -> type[Peer]:
    """Return a supervisor that keeps each agent's output in a file `out-N.log`."""
    if name == "factoryd":
        return Factoryd
    kinds = import_module(f"bench.peers.{name}")
    kind: type[Peer] = kinds.KEEPING_OUTPUT
    return kind
