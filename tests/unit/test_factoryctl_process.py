"""factoryctl as a program among others: signals, pipes, terminals, what it loads, how fast it is."""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys

import pytest
import trio

from factoryd import __version__
from factoryd.wire.answers import LineView, LogsReply
from factoryd.wire.messages import encode_reply
from tests.fakes.daemon import Act, ScriptedDaemon
from tests.unit.ctl import PROGRAM, ROOT, Ctl, environ, issue, run, status


@pytest.fixture
async def daemon(tmp_path, nursery):
    scripted = ScriptedDaemon(tmp_path / "control.sock")
    await nursery.start(scripted.serve)
    return scripted


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path / "control.sock")


def output(*texts):
    views = tuple(LineView(offset=n, text=text) for n, text in enumerate(texts))
    return LogsReply(agent="a", run="r1", lines=views)


# --------------------------------------------------------------------------------- what it loads


HEAVY = {"trio", "psutil", "msgspec", "rich"}

LOADED = """
import sys
from factoryctl.__main__ import main
status = main(sys.argv[1:])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(status)
"""


async def loaded(ctl, *arguments, on_terminal=False):
    command = [sys.executable, "-c", LOADED, "--socket", str(ctl.socket), *arguments]
    if on_terminal:
        _, shown = await ctl.on_terminal(*arguments, program=[sys.executable, "-c", LOADED])
        return set(shown.splitlines()[-1].split())
    done = await run(*command, home=ctl.socket.parent)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.decode().splitlines()[-1].split())


async def test_status_in_json_loads_nothing_heavy(daemon, ctl):
    daemon.when("Status", encode_reply(status(issue())))
    assert not await loaded(ctl, "status", "--json") & HEAVY


async def test_status_that_is_piped_draws_without_rich(daemon, ctl):
    daemon.when("Status", encode_reply(status(issue())))
    daemon.when("Logs", encode_reply(output("x")))
    assert await loaded(ctl, "status") & HEAVY == {"msgspec"}
    assert await loaded(ctl, "logs", "a") & HEAVY == {"msgspec"}


async def test_a_terminal_costs_rich_and_nothing_else(daemon, ctl):
    daemon.when("Status", encode_reply(status(issue())))
    assert await loaded(ctl, "status", on_terminal=True) & HEAVY == {"msgspec", "rich"}


BECOMES = """
import os, sys
from factoryctl.__main__ import main
def show(program, arguments):
    print(*arguments[1:])
    print(*sorted({name.partition(".")[0] for name in sys.modules}))
    sys.exit(0)
os.execv = show
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("arguments", "becomes"),
    [
        (["history"], "history --state-dir S --limit 50"),
        (["--json", "history", "-n3", "A-1"], "history --state-dir S --json --limit 3 -- A-1"),
        (["events"], "events --state-dir S --since 0"),
        (
            ["events", "--since", "7", "--issue=-x", "--json"],
            "events --state-dir S --json --since 7 --issue=-x",
        ),
    ],
)
async def test_without_a_daemon_factoryd_is_asked_and_nothing_heavy_is_loaded(
    ctl, arguments, becomes
):
    command = [sys.executable, "-c", BECOMES, "--socket", str(ctl.socket), "--state-dir", "S"]
    done = await run(*command, *arguments, home=ctl.socket.parent)
    line, modules = done.stdout.decode().splitlines()
    assert line == f"-P -m factoryd {becomes}"
    assert not set(modules.split()) & HEAVY
    assert b"no factoryd is running" in done.stderr


@pytest.mark.parametrize("verb", ["history", "events"])
async def test_a_ledger_is_only_read_where_it_is_known_to_be_the_daemons(ctl, verb):
    socket, home = ["--socket", str(ctl.socket)], ctl.socket.parent
    program = [sys.executable, "-c", BECOMES]
    unknown = await run(*program, *socket, verb, home=home)
    assert unknown.stdout == b""
    assert b"to read its ledger without it, say --state-dir DIR" in unknown.stderr
    usual = str(home / "runtime" / "factoryd" / "control.sock")
    known = await run(*program, verb, home=home, FACTORYD_SOCKET=usual)
    assert known.stdout.startswith(f"-P -m factoryd {verb} -".encode())


def cpu_s_of_children():
    """Return what children that have ended used, whoever else keeps this machine busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
async def test_status_in_json_costs_at_most_four_bare_interpreters(daemon, ctl):
    daemon.when("Status", encode_reply(status(*(issue(f"AR-{n}") for n in range(20)))))
    env = environ(ctl.socket.parent)
    measured = {name: value for name, value in env.items() if not name.startswith("COVERAGE")}
    bare: list[float] = []
    whole: list[float] = []
    for _ in range(20):
        for command, times in (
            ([sys.executable, "-c", "pass"], bare),
            (ctl.command("status", "--json"), whole),
        ):
            began = cpu_s_of_children()
            await trio.run_process(command, capture_stdout=True, cwd=ROOT, env=measured)
            times.append(cpu_s_of_children() - began)
    assert statistics.median(whole) <= 4 * statistics.median(bare)


# ----------------------------------------------------------------------------- pipes and signals


async def started(ctl, *arguments, stdout):
    """Start it without waiting for it; its stdout and stderr are to be read."""
    return await trio.lowlevel.open_process(
        ctl.command(*arguments),
        stdout=stdout,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environ(ctl.socket.parent),
    )


async def test_an_interrupt_ends_it_quietly_with_130(daemon, ctl):
    daemon.when("Logs", encode_reply(output("first"), continues=True), Act.HANG)
    process = await started(ctl, "logs", "a", "-f", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        assert await process.stdout.receive_some() == b"first\n"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await process.stderr.receive_some() == b""


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_a_reader_that_leaves_ends_it_quietly(daemon, ctl, size):
    left = trio.Event()
    first, last = output("first"), output("x" * size)
    daemon.when("Logs", encode_reply(first, continues=True), left, encode_reply(last))
    reader, writer = os.pipe()
    process = await started(ctl, "logs", "a", "-f", stdout=writer)
    os.close(writer)
    assert process.stderr is not None
    async with process.stderr:
        assert await trio.to_thread.run_sync(os.read, reader, 10) == b"first\n"
        os.close(reader)
        left.set()
        assert await process.wait() == 141
        assert await process.stderr.receive_some() == b""


async def test_an_answer_that_cannot_be_written_is_a_failure(daemon, ctl):
    daemon.when("Status", encode_reply(status(issue())))
    full = os.open("/dev/full", os.O_WRONLY)
    process = await started(ctl, "status", stdout=full)
    os.close(full)
    assert process.stderr is not None
    async with process.stderr:
        assert await process.wait() == 1
        said = await process.stderr.receive_some()
    assert said == b"factoryctl: the answer cannot be written: No space left on device\n"


async def test_a_closed_standard_output_is_a_failure(daemon, ctl):
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    arguments = ctl.command("status")[1:]
    done = await run(sys.executable, "-c", code, *arguments, home=ctl.socket.parent)
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr


async def test_text_the_locale_cannot_show_is_spelled_out(daemon, ctl):
    daemon.when("Logs", encode_reply(output("\u2713")))
    command = ctl.command("logs", "a")
    done = await run(*command, home=ctl.socket.parent, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, b"\\u2713\n")


# ------------------------------------------------------------------------------------- terminals


async def test_a_terminal_gets_a_table_in_colour_unless_told_otherwise(daemon, ctl):
    daemon.when("Status", encode_reply(status(issue())))
    code, shown = await ctl.on_terminal("status")
    assert code == 0
    assert "\x1b[32mrunning" in shown
    _, plain = await ctl.on_terminal("status", NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "AR-255" in plain
    _, document = await ctl.on_terminal("status", "--json")
    assert json.loads(document)["issues"][0]["key"] == "AR-255"


async def test_a_watched_terminal_shows_the_newest_picture(daemon, ctl):
    first = encode_reply(status(issue()), continues=True)
    daemon.when("Watch", first, encode_reply(status(issue(key="AR-256"))))
    code, shown = await ctl.on_terminal("status", "--watch")
    assert code == 0
    assert shown.index("AR-255") < shown.index("AR-256")
    assert "\x1b[?1049h" in shown
    assert shown.rindex("\x1b[?1049l") > shown.index("AR-256")


# -------------------------------------------------------------------------------------- command


async def test_the_version_is_the_packages(tmp_path):
    done = await run(*PROGRAM, "--version", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"factoryctl {__version__}\n".encode())


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["status", "--frob"], ["submit"]])
async def test_a_wrong_command_line_is_2_with_usage(tmp_path, arguments):
    done = await run(*PROGRAM, *arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: factoryctl")


async def test_help_names_every_verb(tmp_path):
    done = await run(*PROGRAM, "--help", home=tmp_path)
    assert done.returncode == 0
    for verb in ("status", "submit", "kill", "logs", "events", "health", "shutdown"):
        assert f"    {verb} ".encode() in done.stdout


async def test_the_socket_is_found_by_directory_and_by_environment(daemon, ctl, tmp_path):
    daemon.when("Status", encode_reply(status()))
    status_json = [*PROGRAM, "status", "--json"]
    by_option = await run(*status_json, "--runtime-dir", str(tmp_path), home=tmp_path)
    by_service = await run(*status_json, home=tmp_path, RUNTIME_DIRECTORY=str(tmp_path))
    by_name = await run(*status_json, home=tmp_path, FACTORYD_SOCKET=str(ctl.socket))
    assert [done.returncode for done in (by_option, by_service, by_name)] == [0, 0, 0]
    assert (await run(*status_json, home=tmp_path)).returncode == 3
