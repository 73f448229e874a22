"""What bad agents and bad issue files get: fenced, reported, bounded; and nobody else notices."""

import json
import os
import sys
from functools import partial

import psutil
import pytest
import trio

from tests.system.daemons import WITHIN_S, a_daemon, connect, eventually, is_started, play

pytestmark = pytest.mark.system

MIB = 1 << 20

BAD_AGENTS = """
[agents.missing]
kind = "command"
command = ["/nope/nope"]

[agents.nowhere]
kind = "command"
command = ["no-program-of-this-name"]

[agents.plain]
kind = "command"
command = ["../plain.txt"]

[agents.folder]
kind = "command"
command = ["/etc"]

[agents.garbage]
kind = "command"
command = ["../garbage"]

[recipes]
missing = { stages = [["missing"]] }
nowhere = { stages = [["nowhere"]] }
plain = { stages = [["plain"]] }
folder = { stages = [["folder"]] }
garbage = { stages = [["garbage"]] }
both = { stages = [["worker", "missing"]] }
"""


def configure(place, text):
    """Add agents and recipes to a place's configuration."""
    agents, _, recipes = text.partition("[recipes]\n")
    tables = "".join(
        f"[recipes.{name}]\n{value.strip('{} ')}\n"
        for name, _, value in (line.partition(" = ") for line in recipes.split("\n"))
        if value
    )
    place.config.write_text(f"{place.config.read_text()}\n{agents}\n{tables}")


# ------------------------------------------------------------------------------------------ agents


async def test_an_agent_whose_program_cannot_be_run_fails_its_issue_with_the_reason():
    async with a_daemon() as first:
        place = first.place
        await first.stop()
        configure(place, BAD_AGENTS)
        (place.root / "plain.txt").write_text("echo no\n")
        (place.root / "garbage").write_bytes(b"\x7fELF and no more")
        (place.root / "garbage").chmod(0o755)
        expected = {
            "missing": "/nope/nope: no such program",
            "nowhere": "no-program-of-this-name: no such program",
            "plain": "plain.txt: not executable",
            "folder": "/etc: a directory, not a program",
            "garbage": "exited with 126",
            "both": "/nope/nope: no such program",
        }
        async with place.daemon() as daemon:
            for recipe in expected:
                place.put(f"A-{recipe}", "echo up; exec sleep 600", recipe=recipe)
            place.put("A-good", "exit 0")
            await daemon.wait_issue("A-good", "done")
            for recipe, reason in expected.items():
                issue = await daemon.wait_issue(f"A-{recipe}", "parked")
                assert reason in issue["reason"], recipe
            assert place.survivors() == []
            assert "Traceback" not in place.log


async def test_agents_that_end_at_once_are_all_accounted_for():
    async with a_daemon(factory="slots = 8") as daemon:
        codes = {f"A-{number}": number % 3 for number in range(24)}
        for key, code in codes.items():
            daemon.place.put(key, f"exit {code}")
        for key, code in codes.items():
            issue = await daemon.wait_issue(key, "parked" if code else "done")
            assert issue["agents"][0]["exit"] == code
        counters = (await daemon.status())["counters"]
        assert (counters["done"], counters["parked"]) == (8, 16)


async def test_200_mb_without_a_newline_cost_neither_memory_nor_disk():
    output = "max_bytes_per_run = 4194304\nmax_line_bytes = 1048576"
    async with a_daemon(output=output) as daemon:
        process = psutil.Process(daemon.pid)
        await daemon.status()
        before = process.memory_info().rss
        parts = [f"print:40000000 await:../go-{part}" for part in range(1, 6)]
        daemon.place.put("A-1", f"exec $PYTHON $AGENT {' '.join(parts)} say: say:end")
        await daemon.wait_issue("A-1", "running", when=is_started)
        (file,) = (daemon.place.state / "runs").rglob("output")
        blocks, rss = [0], [0]

        def is_freed(part):
            status = file.stat()
            blocks.append(status.st_blocks * 512)
            rss.append(process.memory_info().rss - before)
            return status.st_size >= part * 40_000_000 and blocks[-1] < 8 * MIB

        for part in range(1, 6):
            await daemon.place.wait_for(partial(is_freed, part))
            (daemon.place.root / f"go-{part}").touch()
        await daemon.wait_issue("A-1", "done")
        assert max(rss) < 64 * MIB
        assert file.stat().st_size > 200_000_000
        assert file.stat().st_blocks * 512 < 8 * MIB
        assert max(blocks) < 60 * MIB
        lines = (await daemon.call("Logs", target="A-1"))["lines"]
        assert lines[-1]["text"] == "end"


async def test_a_flood_of_lines_keeps_nobody_waiting_and_stays_bounded():
    async with a_daemon(output="max_bytes_per_run = 4194304") as daemon:
        flood = "yes 'a line like any other, again and again' | head -c 104857600"
        daemon.place.put("A-1", f"{flood}; while :; do seq 10000; sleep 0.05; done")
        await daemon.wait_issue("A-1", "running", when=is_started)
        (file,) = (daemon.place.state / "runs").rglob("output")
        async with connect(daemon.place.socket) as client:
            slowest, status = 0.0, file.stat()
            with trio.fail_after(WITHIN_S):
                while status.st_size < 100 * MIB or status.st_blocks * 512 >= 32 * MIB:
                    began = trio.current_time()
                    await client.call("Health")
                    slowest, status = max(slowest, trio.current_time() - began), file.stat()
            assert slowest < 5
        daemon.place.put("A-2", "exit 0")
        await daemon.wait_issue("A-2", "done")
        await daemon.call("Kill", targets=["A-1"])
        assert file.stat().st_blocks * 512 < 32 * MIB


UNKIND = {
    "closes its output": ("exec $PYTHON $AGENT close exit:3", "parked", 3),
    "closes its output and goes on": ("exec >&- 2>&-; sleep 0.3; exit 0", "done", 0),
    "prints bytes that are no text": ("head -c 300000 /dev/urandom; exit 4", "parked", 4),
    "replaces its output by a pipe": (
        'o=$(readlink /proc/$$/fd/1); rm "$o"; mkfifo "$o"; exit 5',
        "parked",
        5,
    ),
    "replaces its output by a link": (
        'o=$(readlink /proc/$$/fd/1); ln -sf /etc/passwd "$o"; exit 6',
        "parked",
        6,
    ),
    "truncates its output": (
        'seq 1000; : >"$(readlink /proc/$$/fd/1)"; echo again; exit 7',
        "parked",
        7,
    ),
    "removes its workspace": ('d=$PWD; rm -rf "$d"/*; exit 8', "parked", 8),
    "leaves strays": ("exec $PYTHON $AGENT setsid double-fork escape exit:9", "parked", 9),
    "ends by a signal": ("kill -SEGV $$", "parked", 139),
    "stops itself": (
        (
            "(until grep -q '^State:.T' /proc/$$/status; do sleep 0.01; done; kill -CONT $$) & "
            "kill -STOP $$; exit 11"
        ),
        "parked",
        11,
    ),
}


async def test_unkind_agents_are_fenced_their_exit_is_known_and_nothing_is_left():
    async with a_daemon() as daemon:
        for number, (script, _, _) in enumerate(UNKIND.values()):
            daemon.place.put(f"A-{number}", script)
        for number, (what, (_, state, code)) in enumerate(UNKIND.items()):
            issue = await daemon.wait_issue(f"A-{number}", "done", "parked")
            assert (issue["state"], issue["agents"][0]["exit"]) == (state, code), what
            logs = await daemon.call("Logs", target=f"A-{number}")
            assert not any("root:" in line["text"] for line in logs["lines"]), what
        assert daemon.place.survivors() == []
        assert "Traceback" not in daemon.place.log


async def test_an_agent_that_ends_its_own_parent_is_stopped_and_its_exit_is_unknown():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", "kill -9 $PPID; echo up; sleep 600")
        issue = await daemon.wait_issue("A-1", "parked")
        assert issue["agents"][0]["exit"] in (None, 137)
        assert daemon.place.survivors() == []


async def test_an_agent_that_removes_its_runs_directory_costs_only_its_own_issue():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", 'rm -rf "$(dirname "$(readlink /proc/$$/fd/1)")"; echo up; exit 0')
        daemon.place.put("A-2", "sleep 0.5; exit 0")
        await daemon.wait_issue("A-1", "done", "parked")
        await daemon.wait_issue("A-2", "done")
        assert (await daemon.call("Logs", target="A-1"))["lines"] == []
        assert daemon.place.survivors() == []


async def test_an_agent_that_ignores_sigterm_ends_after_the_grace():
    async with a_daemon() as daemon:
        daemon.place.put("A-1", play("ignore:TERM", "child:2"))
        await daemon.wait_running("A-1")
        began = trio.current_time()
        assert await daemon.stop() == 0
        assert trio.current_time() - began >= 0.3
        where = ["--state-dir", str(daemon.place.state), "--json"]
        told = await daemon.place.run(
            command=[sys.executable, "-m", "factoryd", "history", "A-1", *where]
        )
        (run,) = json.loads(told.stdout)["attempts"][0]["runs"]
        assert run["signals"] == ["SIGTERM", "SIGKILL"]


# ------------------------------------------------------------------------------------------- files


def front(key, title="Bad"):
    return f"---\nkey: {key}\ntitle: {title}\n---\ntouch ../never\n".encode()


BAD_FILES = {
    "empty.md": b"",
    "plain.md": b"just text\n",
    "unclosed.md": b"---\nkey: A-1\ntitle: x\n",
    "no-key.md": b"---\ntitle: x\n---\nbody\n",
    "no-title.md": b"---\nkey: A-1\n---\nbody\n",
    "large.md": front("A-1") + b"x" * 10_000_000,
    "binary.md": bytes(range(256)) * 100,
    "nul.md": front("A-1") + b"\0",
    "latin-1.md": "---\nkey: A-1\ntitle: Größe\n---\n".encode("latin-1"),
    "slash.md": front("a/b"),
    "dots.md": front(".."),
    "up.md": front("../../etc/passwd"),
    "long.md": front("A" * 300),
    "spaces.md": front("A 1"),
}


def make_oddities(ready):
    """Put things into `ready/` that are no regular files, or none that can be read."""
    (ready / "folder.md").mkdir()
    os.mkfifo(ready / "pipe.md")
    (ready / "link.md").symlink_to("/etc/passwd")
    (ready / "loop.md").symlink_to("loop.md")
    (ready / "nowhere.md").symlink_to("nothing-there")
    return {"folder.md", "pipe.md", "link.md", "loop.md", "nowhere.md"}


async def problems_of(daemon):
    (source,) = (await daemon.status())["sources"]
    return source["problems"]


async def count_problems(daemon, count):
    return len(await problems_of(daemon)) == count


async def test_bad_issue_files_are_reported_once_by_name_and_stay_where_they_are():
    async with a_daemon(factory='poll_interval = "100ms"') as daemon:
        place = daemon.place
        for name, content in BAD_FILES.items():
            (place.ready / f".{name}").write_bytes(content)
            (place.ready / f".{name}").rename(place.ready / name)
        bad = set(BAD_FILES) | make_oddities(place.ready)
        place.put("A-good", "exit 0")
        await daemon.wait_issue("A-good", "done")
        await eventually(lambda: count_problems(daemon, len(bad)))
        problems = await problems_of(daemon)
        for name in bad:
            (problem,) = [one for one in problems if name in one["where"]]
            assert problem["reason"]
        for number in range(5):  # the source is looked at again and again meanwhile
            place.put(f"A-more-{number}", "exit 0")
            await daemon.wait_issue(f"A-more-{number}", "done")
        for name in bad:
            assert sum(f"/{name}" in line for line in place.log.splitlines()) == 1, name
        assert {path.name for path in place.ready.iterdir()} == bad
        assert not (place.root / "never").exists()
        assert "Traceback" not in place.log
        assert (await daemon.call("Health"))["state"] == "ok"
        for name in bad - {"folder.md"}:
            (place.ready / name).unlink()
        (place.ready / "folder.md").rmdir()
        await eventually(lambda: count_problems(daemon, 0))


async def test_of_two_files_with_one_key_one_is_worked_on_and_the_other_is_reported():
    async with a_daemon() as daemon:
        place = daemon.place
        await daemon.stop()
        for name in ("first.md", "second.md", "third.md"):
            key = "A-1" if name != "third.md" else "a-1"
            (place.ready / name).write_text(f"---\nkey: {key}\ntitle: {name}\n---\nexit 0\n")
        async with place.daemon() as again:
            await again.wait_issue("A-1", "done")
            assert {path.name for path in place.ready.iterdir()} == {"second.md", "third.md"}
            await again.wait_fact("A-1", "outcome-written")
            done = {path.name for path in (place.root / "issues" / "done").glob("*.md")}
            assert done == {"first.md"}
            for name in ("second.md", "third.md"):  # at the first look, when all three were ready
                assert f"/{name}: the key" in place.log


async def test_files_that_come_and_go_while_they_are_read_harm_nothing():
    async with a_daemon(factory='poll_interval = "10ms"') as daemon:
        place = daemon.place
        for number in range(300):
            path = place.ready / f"ghost-{number % 7}.md"
            path.write_bytes(front(f"G-{number}")[: number % 40])
            await trio.sleep(0.001)
            path.unlink(missing_ok=True)
        place.put("A-1", "exit 0")
        await daemon.wait_issue("A-1", "done")
        await eventually(lambda: count_problems(daemon, 0))
        assert "Traceback" not in place.log
        assert (await daemon.call("Health"))["state"] == "ok"


@pytest.mark.parametrize("what", ["gone", "replaced by a file", "unreadable link"])
async def test_a_source_whose_folder_is_lost_is_named_as_failing_until_it_is_back(what):
    async with a_daemon(factory='poll_interval = "100ms"') as daemon:
        place = daemon.place
        folder, away = place.root / "issues", place.root / "away"
        folder.rename(away)
        if what == "replaced by a file":
            folder.write_text("no folder")
        elif what == "unreadable link":
            folder.symlink_to(folder)
        if what != "gone":

            async def is_named():
                return (await daemon.call("Health"))["degraded"] == ["source issues"]

            await eventually(is_named)
            assert (await daemon.status())["sources"][0]["state"] == "failing"
            folder.unlink()
        away.rename(folder)
        place.put("A-1", "exit 0")
        await daemon.wait_issue("A-1", "done")
        assert (await daemon.call("Health"))["degraded"] == []


async def test_a_title_full_of_oddities_stays_a_title():
    title = '"$(touch ../never) `touch ../never` {issue.key} %s \\\\x1b[31m 🤖"'
    async with a_daemon() as daemon:
        daemon.place.put("A-1", "exit 0", title=title)
        issue = await daemon.wait_issue("A-1", "done")
        assert "🤖" in issue["title"]
        assert not (daemon.place.root / "never").exists()
