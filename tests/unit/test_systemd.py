"""What systemd hears, as it arrives on its socket."""

import math
import socket
import time

import pytest

from factoryd.adapters.systemd import SystemdNotifier, read_watchdog


@pytest.fixture
def heard(tmp_path, monkeypatch):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notifier = SystemdNotifier()
        yield notifier, lambda: listening.recv(4096).decode()
        notifier.close()


def test_each_word_is_a_datagram_of_its_own(heard):
    notifier, hear = heard
    notifier.ready()
    notifier.stopping()
    notifier.alive()
    notifier.extend(30.5)
    said = [hear() for _ in range(4)]
    assert said == ["READY=1", "STOPPING=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=30500000"]


def test_reloading_says_since_when_by_the_clock_that_systemd_compares_with(heard):
    notifier, hear = heard
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    notifier.reloading()
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    word, _, rest = hear().partition("\n")
    name, _, moment = rest.partition("=")
    assert (word, name) == ("RELOADING=1", "MONOTONIC_USEC")
    assert int(before * 1e6) <= int(moment) <= after * 1e6


def test_a_status_is_one_line_of_utf_8_and_told_once(heard):
    notifier, hear = heard
    notifier.status("late: source Grüße→\nREADY=1")
    notifier.status("late: source Grüße→\nREADY=1")
    notifier.status("fine")
    assert [hear(), hear()] == ["STATUS=late: source Grüße→ READY=1", "STATUS=fine"]


def test_a_systemd_that_does_not_listen_holds_nobody_up_and_is_told_later(heard):
    notifier, hear = heard
    fillers = 0
    while not notifier._unsaid:  # until nothing more fits
        notifier.status(f"filler {fillers}")
        fillers += 1
    last = fillers - 1
    notifier.ready()
    notifier.alive()
    notifier.alive()
    assert [hear() for _ in range(last)] == [f"STATUS=filler {n}" for n in range(last)]
    notifier.status(f"filler {last}")
    assert sorted(hear() for _ in range(3)) == ["READY=1", f"STATUS=filler {last}", "WATCHDOG=1"]
    notifier.alive()
    assert hear() == "WATCHDOG=1"


def test_a_systemd_that_is_gone_is_no_trouble(tmp_path, monkeypatch):
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        notifier = SystemdNotifier()
    notifier.ready()
    notifier.stopping()
    notifier.close()


def test_without_a_service_manager_nothing_is_said(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = SystemdNotifier()
    notifier.ready()
    notifier.reloading()
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, math.inf),
        ({"WATCHDOG_USEC": "0"}, math.inf),
        ({"WATCHDOG_USEC": "soon"}, math.inf),
        ({}, math.inf),
    ],
)
def test_the_watchdog_is_known_by_its_variables(environ, seconds):
    assert read_watchdog(environ, 7) == seconds
