"""What every `ports.ProcessTrees` must do: the cgroups, the subreaper and the fake sit one exam."""

import contextlib
import gc
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec import structs

from factoryd.adapters.launch import launch
from factoryd.adapters.pidfd import PidFd, Verdict, identify, open_verified, verify, wait_ended
from factoryd.adapters.proc import list_pids, read_argv, read_stat
from factoryd.adapters.process_tree import choose
from factoryd.adapters.subreaper import set_subreaper
from factoryd.core.errors import CannotStart
from factoryd.core.model import (
    Command,
    Containment,
    Exit,
    Limits,
    ProcessIdentity,
    RunId,
    StopOrder,
    StopPolicy,
    StopReport,
    TreePlace,
)
from factoryd.ports import ProcessTrees, Tree
from tests import conftest
from tests.fakes.trees import FakeTrees, Program, World

AGENT = Path(__file__).parent.parent / "fakes" / "agent.py"
POLICY = StopPolicy()
ALL = ("cgroup", "subreaper", "fake")
REAL = ("cgroup", "subreaper")
_runs = itertools.count(1)


def play(place: TreePlace, command: Command) -> Program:
    """Return the fake's part for a command of the agent program."""
    program = Program()
    if command.argv[0] == "no-such-program":
        return Program(cannot_start="no-such-program: no such program")
    for word in command.argv:
        step, _, argument = word.partition(":")
        if step == "exit":
            program = replace(program, status=int(argument))
        elif step == "await":
            program = replace(program, after_s=0.01)
        elif step == "ignore":
            program = replace(program, ignores_terminate=True)
        elif step == "child":
            program = replace(program, children=int(argument))
    return program


class Lab:
    """Trees of one kind, and a place for their files."""

    def __init__(self, kind: str, name: str, tmp_path: Path) -> None:
        self.kind = kind
        self._name = name
        self._tmp_path = tmp_path
        self._world = World()
        self.trees = self.make_trees()

    def make_trees(self) -> ProcessTrees:
        """Return trees as the next daemon would make them."""
        if self.kind == "fake":
            return FakeTrees(play, self._world)
        return choose(self._name, self.kind)

    def place(self, issue: str = "AR-1") -> TreePlace:
        run = RunId(f"run-{os.getpid()}-{next(_runs)}")
        directory = self._tmp_path / run
        directory.mkdir()
        return self.trees.place(issue, "ar-1-impl", run, str(directory))

    def command(self, *steps: str, **env: str) -> Command:
        argv = (sys.executable, "-S", "-E", str(AGENT), *steps)
        return Command(argv=argv, env={"PATH": os.defpath, **env}, cwd=str(self._tmp_path))

    async def start(self, *steps: str) -> Tree:
        """Start the agent program and return once it has said that it is ready, if it will."""
        tree = await self.trees.start(self.place(), self.command(*steps))
        if "say:ready" in steps and self.kind != "fake":
            await self.wait_output(tree, "ready\n")
        return tree

    def output(self, tree: Tree) -> str:
        return Path(tree.place.directory, "output").read_text()

    async def wait_output(self, tree: Tree, text: str) -> None:
        await wait_text(tree.place.directory + "/output", text)


async def wait_text(path: str, text: str) -> None:
    """Return once a file has this text in it."""
    with trio.fail_after(10):
        while text not in await trio.Path(path).read_text():  # noqa: ASYNC110  a program of its own tells
            await trio.sleep(0.002)


def list_processes(tree: Tree) -> list[int]:
    """Return the tree's processes, found in a way of this test's own: by the run's directory.

    Every process of the agent program has its output file or its status file somewhere.
    """
    found = []
    for pid in list_pids():
        files = []
        for fd in (1, 2):
            with contextlib.suppress(OSError):
                files.append(str(Path(f"/proc/{pid}/fd/{fd}").readlink()))
        if any(tree.place.directory in text for text in (*files, *read_argv(pid))):
            found.append(pid)
    return found


def list_children(pid: int) -> list[int]:
    stats = (read_stat(each) for each in list_pids())
    return [stat.pid for stat in stats if stat is not None and stat.ppid == pid]


def state(pid: int) -> str | None:
    stat = read_stat(pid)
    return stat.state if stat is not None else None


async def wait_state(pid: int, wanted: str) -> None:
    with trio.fail_after(10):
        while state(pid) != wanted:  # noqa: ASYNC110  the kernel announces no states
            await trio.sleep(0.002)


def is_alive(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and not stat.ended


async def wait_not_alive(*pids: int) -> None:
    with trio.fail_after(10):
        while any(map(is_alive, pids)):  # noqa: ASYNC110  nobody waits for them all
            await trio.sleep(0.002)


def kill_one(pid: int) -> None:
    """Kill one process, as an unlucky accident would."""
    identity = identify(pid)
    assert identity is not None
    process = open_verified(identity)
    assert isinstance(process, PidFd)
    with process:
        assert process.send(signal.SIGKILL) is Verdict.SENT


async def stop(tree: Tree, grace_s: float = 5, policy: StopPolicy = POLICY) -> StopReport:
    with trio.move_on_after(grace_s):
        await tree.terminate(policy)
    return await tree.kill(policy)


async def stop_after(tree: Tree, policy: StopPolicy, *pids: int) -> StopReport:
    """Stop a tree with a grace that passes as soon as these processes have ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.terminate, policy)
        await wait_not_alive(*pids)
        nursery.cancel_scope.cancel()
    return await tree.kill(policy)


def assert_emptied(report: StopReport, tree: Tree) -> None:
    assert report.emptied, report
    assert report.survivors == 0
    if tree.place.cgroup is not None:
        assert not Path(tree.place.cgroup).exists()
    assert list_processes(tree) == []


@pytest.fixture
def lab(request: pytest.FixtureRequest, daemon_name: str, tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(request.param, daemon_name, tmp_path)
    yield lab
    leaves: list[Path] = []
    for root in conftest.own_roots():
        leaves += (root / "agents").glob("*/*")
        conftest.empty(root)
    children = conftest.end_children()  # and their orphans, while those come to us
    set_subreaper(on=False)
    for one in gc.get_objects() if children else ():
        if type(one) is subprocess.Popen:
            one.poll()  # or it would warn of its child during a later test
    assert not leaves, "the test left trees"
    assert not children, "the test left children"


everywhere = pytest.mark.parametrize("lab", ALL, indirect=True)
with_processes = pytest.mark.parametrize("lab", REAL, indirect=True)
in_cgroups = pytest.mark.parametrize("lab", ["cgroup"], indirect=True)
pytestmark = pytest.mark.system


# ---------------------------------------------------------------- exits


@everywhere
@pytest.mark.parametrize("status", [0, 1, 10, 75, 255])
async def test_an_exit_status_is_known_exactly(lab, status):
    tree = await lab.start(f"exit:{status}")
    assert await tree.wait_exit() == Exit(status=status)
    assert await tree.wait_exit() == Exit(status=status)
    assert_emptied(await tree.kill(POLICY), tree)


@with_processes
async def test_a_death_by_signal_is_known_as_the_shell_would_say_it(lab):
    tree = await lab.start("say:ready", "sleep")
    [agent] = list_children(tree.identity.pid)
    kill_one(agent)
    assert await tree.wait_exit() == Exit(status=137)
    assert lab.output(tree) == "ready\n"
    assert_emptied(await tree.kill(POLICY), tree)


@everywhere
async def test_waiting_for_an_exit_can_be_given_up_and_taken_up_again(lab):
    tree = await lab.start("say:ready", "sleep")
    with trio.move_on_after(0.01) as scope:
        await tree.wait_exit()
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.wait_exit)
        nursery.start_soon(tree.wait_exit)
        assert_emptied(await stop(tree), tree)


@with_processes
async def test_a_shim_that_is_killed_is_an_exit_too(lab):
    tree = await lab.start("child:2", "say:ready", "sleep")
    kill_one(tree.identity.pid)
    assert await tree.wait_exit() == Exit(status=137)
    assert_emptied(await tree.kill(POLICY), tree)


@with_processes
async def test_looking_at_a_tree_that_has_ended_does_not_cost_its_exit(lab):
    tree = await lab.start("escape", "exit:7")
    status = trio.Path(tree.place.directory, "status")
    with trio.fail_after(10):
        while not await status.exists() or is_alive(tree.identity.pid):  # noqa: ASYNC110  a program of its own tells
            await trio.sleep(0.002)
    for _ in range(3):
        assert tree.usage().processes == 1
    await status.unlink()
    assert await tree.wait_exit() == Exit(status=7)
    assert_emptied(await tree.kill(POLICY), tree)


@in_cgroups
async def test_a_shim_that_cannot_enter_its_cgroup_runs_nothing_and_says_so(lab):
    place = lab.place()
    options = ("--procs", "/sys/fs/cgroup/no-such-leaf/cgroup.procs")
    process = launch(place, lab.command("say:never"), options)
    assert await trio.to_thread.run_sync(process.wait) == 125
    tree = await lab.trees.adopt(place, None)
    assert await tree.wait_exit() == Exit(status=125, reason="the cgroup cannot be entered")
    assert "never" not in lab.output(tree)


# ---------------------------------------------------------------- starting


@everywhere
async def test_a_started_tree_has_a_root_that_is_named(lab):
    tree = await lab.start("say:ready", "sleep")
    assert tree.identity is not None
    if lab.kind != "fake":
        words = read_argv(tree.identity.pid)
        assert words[words.index("--agent-name") + 1] == "ar-1-impl"
        assert words[words.index("--run") + 1] == tree.place.run
    assert_emptied(await stop(tree), tree)


@everywhere
async def test_a_program_that_is_not_there_leaves_nothing(lab):
    place = lab.place("AR-9")
    command = Command(argv=("no-such-program",), env={"PATH": "/bin"}, cwd="/")
    with pytest.raises(CannotStart, match="no-such-program: no such program"):
        await lab.trees.start(place, command)
    assert list(lab.trees.list_strays(frozenset())) == []
    if lab.kind == "cgroup":
        assert not Path(place.cgroup).parent.exists()


@with_processes
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"argv": ("./missing",)}, "^./missing: no such program$"),
        ({"argv": ("plain",)}, "^plain: not executable in the agent's PATH$"),
        ({"argv": ("./plain",)}, "^./plain: not executable$"),
        ({"argv": ("/etc",)}, "^/etc: a directory, not a program$"),
        ({"argv": ()}, "^the agent's command is empty$"),
        ({"cwd": "/no/such/place"}, "^true: its working directory /no/such/place does not exist$"),
        ({"stdin": "/no/such/file"}, "^true: /no/such/file No such file or directory$"),
        ({"user": "nobody"}, "^true: running as another user .nobody. is not supported$"),
        ({"argv": ("true", "a\0b")}, "^true: .* NUL character"),
        ({"argv": ("true", "x" * 200_000)}, "^true: .*Argument list too long$"),
        ({"env": {"BASH_FUNC_x%%": "() {"}}, "^true: the environment variable 'BASH_FUNC_x%%'"),
    ],
)
async def test_a_call_that_cannot_work_is_refused_by_name(lab, tmp_path, change, reason):
    (tmp_path / "plain").write_text("no program")
    good = {"argv": ("true",), "env": {"PATH": f"{tmp_path}:/bin"}, "cwd": str(tmp_path)}
    with pytest.raises(CannotStart, match=reason):
        await lab.trees.start(lab.place(), Command(**{**good, **change}))
    assert list(lab.trees.list_strays(frozenset())) == []


@with_processes
async def test_a_cancelled_start_leaves_nothing(lab):
    with trio.CancelScope() as scope:
        scope.cancel()
        await lab.trees.start(lab.place(), lab.command("sleep"))
    assert scope.cancelled_caught
    assert list(lab.trees.list_strays(frozenset())) == []


@with_processes
async def test_an_agent_gets_its_command_and_nothing_else(lab, tmp_path):
    code = "import os, sys, signal; print(os.environ, sys.argv, os.getcwd(), os.listdir('/proc/self/fd'),"
    code += (
        " sys.stdin.read(), [s for s in signal.Signals if signal.getsignal(s) is signal.SIG_IGN])"
    )
    (tmp_path / "prompt").write_text("the prompt")
    argv = (sys.executable, "-I", "-S", "-c", code, "--", "--status", "", "a b")
    command = Command(
        argv=argv,
        env={"FACTORY_RUN": "r", "status": "mine", "LC_ALL": "C.UTF-8"},
        cwd=str(tmp_path),
        stdin=str(tmp_path / "prompt"),
    )
    tree = await lab.trees.start(lab.place(), command)
    assert await tree.wait_exit() == Exit(status=0)
    environment = {"FACTORY_RUN": "r", "status": "mine", "LC_ALL": "C.UTF-8", "PWD": str(tmp_path)}
    text = lab.output(tree)
    shown = eval(text[text.index("{") : text.index("}") + 1])
    assert shown == environment
    assert "['-c', '--', '--status', '', 'a b']" in text
    assert "['0', '1', '2', '3'] the prompt" in text  # 3 lists the directory
    assert "SIGTERM" not in text
    assert_emptied(await tree.kill(POLICY), tree)


@with_processes
async def test_output_is_appended_and_private(lab):
    place = lab.place()
    output = trio.Path(place.directory, "output")
    tree = await lab.trees.start(place, lab.command("say:one", "print:100000"))
    await tree.wait_exit()
    await tree.kill(POLICY)
    assert (await output.stat()).st_mode & 0o777 == 0o600
    again = lab.trees.place(
        place.issue, place.agent, RunId(f"again-{os.getpid()}"), place.directory
    )
    tree = await lab.trees.start(again, lab.command("say:two"))
    await tree.wait_exit()
    assert await output.read_text() == "one\n" + "x" * 100_000 + "two\n"
    assert_emptied(await tree.kill(POLICY), tree)


# ---------------------------------------------------------------- stopping


@everywhere
async def test_a_polite_agent_ends_on_being_asked(lab):
    tree = await lab.start("on-term:143", "say:ready", "sleep")
    with trio.fail_after(5):
        await tree.terminate(POLICY)
    assert (await tree.wait_exit()).status == 143
    report = await tree.kill(POLICY)
    assert report.signals == ("SIGTERM",)
    assert report.killed >= 1
    assert_emptied(report, tree)


@everywhere
async def test_an_agent_that_ignores_the_signal_is_killed(lab):
    tree = await lab.start("ignore:TERM", "child:3", "say:ready", "sleep")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.terminate, POLICY)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    report = await tree.kill(POLICY)
    assert report.signals == ("SIGTERM", "SIGKILL")
    assert report.took_s >= 0.1
    assert_emptied(report, tree)


@everywhere
async def test_killing_again_proves_again(lab):
    tree = await lab.start("say:ready", "sleep")
    assert_emptied(await tree.kill(POLICY), tree)
    assert_emptied(await tree.kill(POLICY), tree)


@everywhere
async def test_children_outlive_the_exit_and_not_the_kill(lab):
    tree = await lab.start("child:5", "exit:0")
    assert await tree.wait_exit() == Exit(status=0)
    assert tree.usage().processes
    report = await tree.kill(POLICY)
    assert report.signals == ("SIGKILL",)
    assert report.killed == 5
    assert_emptied(report, tree)


@with_processes
@pytest.mark.parametrize("step", ["setsid", "double-fork", "bare-child", "escape"])
@pytest.mark.parametrize("end", ["exit:0", "sleep"])
async def test_no_child_escapes(lab, step, end):
    tree = await lab.start(step, "say:ready", end)
    report = await stop(tree, grace_s=0.2)
    assert_emptied(report, tree)
    assert report.killed >= 1


@with_processes
@pytest.mark.parametrize(
    "steps",
    [
        ("say:ready", "stop"),
        ("name:innocent", "say:ready", "sleep"),
        ("name:a) R 1 (b", "say:ready", "sleep"),
        ("say:ready", "exec:sleep"),
        ("say:ready", "close", "sleep"),
        ("last-words:alas", "say:ready", "sleep"),
    ],
    ids=lambda steps: next(step for step in steps if step != "say:ready"),
)
async def test_an_odd_agent_ends_on_being_asked(lab, steps):
    tree = await lab.start(*steps)
    if "stop" in steps:
        await wait_state(list_children(tree.identity.pid)[0], "T")
    report = await stop(tree)
    assert report.signals == ("SIGTERM",)
    assert_emptied(report, tree)


@with_processes
async def test_the_dying_words_of_an_agent_are_kept(lab):
    tree = await lab.start("last-words:alas", "say:ready", "sleep")
    await stop(tree)
    assert await tree.wait_exit() == Exit(status=0)
    assert lab.output(tree).count("alas") == 20


@with_processes
async def test_a_storm_of_forks_is_ended(lab):
    tree = await lab.start("ignore:TERM", "storm:5", "say:ready", "sleep")
    assert_emptied(await stop(tree, grace_s=0.2), tree)


@with_processes
async def test_a_tree_of_22_processes_is_ended(lab):
    tree = await lab.start("child:10", "deep:8", "double-fork", "say:ready", "sleep")
    assert tree.usage().processes == 21 + 1 - 1  # the shim, the agent, its 10, 8 and 1
    report = await stop(tree)
    assert report.signals == ("SIGTERM",)
    assert report.killed == 21
    assert_emptied(report, tree)


@with_processes
async def test_a_deep_and_a_wide_tree_are_ended(lab):
    for step in ("deep:150", "child:150"):
        tree = await lab.start(step, "ignore:TERM", "say:ready", "sleep")
        assert_emptied(await stop(tree, grace_s=0), tree)


@with_processes
@pytest.mark.parametrize("order", list(StopOrder))
async def test_the_signal_goes_round_in_the_order_asked_for(lab, order, monkeypatch):
    sent: list[int] = []
    real = signal.pidfd_send_signal

    def send(fd: int, number: int) -> None:
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        sent.append(int(info.split("Pid:")[1].split()[0]))
        real(fd, number)

    # None of them ends on being asked: the root would follow its agent before its own turn.
    tree = await lab.start("ignore:TERM", "deep:3", "say:ready", "sleep")
    line = [tree.identity.pid]
    while children := list_children(line[-1]):
        line.append(children[0])
    monkeypatch.setattr(signal, "pidfd_send_signal", send)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.terminate, StopPolicy(order=order))
        with trio.fail_after(10):
            while len(sent) < 5:  # noqa: ASYNC110  threads send them
                await trio.sleep(0.002)
        nursery.cancel_scope.cancel()
    assert len(line) == 5
    assert sent == (line if order is StopOrder.ROOT_FIRST else line[::-1])
    assert_emptied(await tree.kill(POLICY), tree)


@with_processes
async def test_a_kill_right_after_the_start_lets_nothing_through(lab):
    for _ in range(20):
        tree = await lab.trees.start(lab.place(), lab.command("sleep"))
        identity = tree.identity
        assert_emptied(await tree.kill(POLICY), tree)
        assert verify(identity) is not None


# ---------------------------------------------------------------- protection


@with_processes
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
async def test_a_protected_process_is_never_signalled_nor_what_is_below_it(lab, number):
    tree = await lab.start("deep:3", "child:2", "say:ready", "sleep")
    [agent] = list_children(tree.identity.pid)
    top = next(child for child in list_children(agent) if list_children(child))
    [middle] = list_children(top)
    [bottom] = list_children(middle)
    others = {*list_processes(tree)} - {top, middle, bottom}
    assert len(others) == 4
    policy = StopPolicy(protected_pids=frozenset({top}))
    asks = number == "SIGTERM"
    report = await (stop_after(tree, policy, *others) if asks else tree.kill(policy))
    assert not report.emptied
    assert report.survivors == 3
    assert report.signals == (number,)
    reasons = {skip.pid: skip.reason for skip in report.skipped}
    below = f"below the protected process {top}"
    assert reasons == {top: "protected", middle: below, bottom: below}
    assert all(map(is_alive, (top, middle, bottom)))
    await wait_not_alive(*others)
    report = await tree.kill(POLICY)
    assert_emptied(report, tree)


@with_processes
async def test_a_command_is_protected_by_its_exact_name(lab):
    tree = await lab.start("bare-child", "say:ready", "sleep")
    [agent] = list_children(tree.identity.pid)
    [sleeper] = list_children(agent)
    policy = StopPolicy(protected_commands=frozenset({"slee", "SLEEP", "sleep"}))
    report = await stop_after(tree, policy, tree.identity.pid, agent)
    assert [(skip.pid, skip.reason) for skip in report.skipped] == [(sleeper, "protected")]
    assert is_alive(sleeper)
    near = StopPolicy(protected_commands=frozenset({"slee", "SLEEP", "/bin/sleep", "sh"}))
    assert_emptied(await stop(tree, policy=near), tree)


# ---------------------------------------------------------------- adopting


@everywhere
async def test_an_adopted_tree_is_the_same_tree(lab):
    first = await lab.start("say:ready", "sleep")
    second = await lab.make_trees().adopt(first.place, first.identity)
    assert (second.identity, second.place) == (first.identity, first.place)
    with trio.move_on_after(0.02) as scope:
        await second.wait_exit()
    assert scope.cancelled_caught
    report = await stop(second)
    assert report.signals == ("SIGTERM",)
    assert_emptied(report, second)
    assert await first.wait_exit() == Exit(status=143)


@everywhere
async def test_a_stop_that_was_begun_is_known_to_who_takes_the_tree_over(lab):
    first = await lab.start("ignore:TERM", "say:ready", "sleep")
    with trio.move_on_after(0.1):
        await first.terminate(POLICY)
    second = await lab.make_trees().adopt(first.place, first.identity)
    with trio.fail_after(5):
        ended = await second.wait_exit()
    assert (ended.status, ended.stopped) == (None, True)
    assert second.preview(POLICY).pids, "it runs"
    assert_emptied(await second.kill(POLICY), second)
    await first.wait_exit()  # its root was a child of ours


@everywhere
async def test_the_status_of_a_tree_that_was_stopped_unrecorded_is_not_believed(lab):
    first = await lab.start("on-term:0", "say:ready", "sleep")
    await stop(first)
    second = await lab.make_trees().adopt(first.place, first.identity)
    ended = await second.wait_exit()
    assert (ended.status, ended.stopped) == (None, True)
    assert_emptied(await second.kill(POLICY), second)


@everywhere
async def test_the_status_of_a_tree_that_had_ended_when_the_rest_was_stopped_is_its_own(lab):
    first = await lab.start("child:1", "exit:3")
    assert await first.wait_exit() == Exit(status=3)
    await stop(first)
    second = await lab.make_trees().adopt(first.place, first.identity)
    assert await second.wait_exit() == Exit(status=3)


@everywhere
async def test_an_adopted_tree_that_ended_unseen_has_its_exact_status(lab):
    first = await lab.start("exit:42")
    await first.wait_exit()
    second = await lab.make_trees().adopt(first.place, first.identity)
    assert await second.wait_exit() == Exit(status=42)
    assert_emptied(await second.kill(POLICY), second)


@everywhere
async def test_an_adopted_tree_that_never_began_is_a_tree_all_the_same(lab):
    tree = await lab.trees.adopt(lab.place(), None)
    assert tree.identity is None
    ended = await tree.wait_exit()
    assert ended.status is None
    assert ended.reason is not None
    with trio.fail_after(5):
        await tree.terminate(POLICY)
    report = await tree.kill(POLICY)
    assert (report.signals, report.killed) == ((), 0)
    assert_emptied(report, tree)


@everywhere
async def test_a_tree_whose_pid_was_never_recorded_is_found(lab):
    first = await lab.start("say:ready", "sleep")
    second = await lab.make_trees().adopt(first.place, None)
    assert second.identity == first.identity
    assert_emptied(await second.kill(POLICY), second)
    await first.wait_exit()


@with_processes
async def test_an_adopted_tree_without_status_says_why(lab):
    first = await lab.start("child:1", "say:ready", "sleep")
    kill_one(first.identity.pid)
    await first.wait_exit()
    second = await lab.make_trees().adopt(first.place, first.identity)
    reason = "its first process ended without leaving a status"
    assert await second.wait_exit() == Exit(status=None, reason=reason)
    rebooted = ProcessIdentity(pid=1, start_ticks=0, boot_id="another boot")
    third = await lab.trees.adopt(first.place, rebooted)
    assert await third.wait_exit() == Exit(status=None, reason="lost in reboot")
    assert_emptied(await second.kill(POLICY), second)


# ---------------------------------------------------------------- strays, owners, usage


@everywhere
async def test_a_tree_that_nobody_knows_is_a_stray(lab):
    known = await lab.start("say:ready", "sleep")
    stray = await lab.start("say:ready", "sleep")
    [place] = lab.trees.list_strays(frozenset({known.place.run}))
    assert place.run == stray.place.run
    assert place.cgroup == stray.place.cgroup
    again = await lab.make_trees().adopt(place, None)
    assert_emptied(await again.kill(POLICY), stray)
    assert list(lab.trees.list_strays(frozenset({known.place.run}))) == []
    assert_emptied(await stop(known), known)
    await stray.wait_exit()


@with_processes
async def test_another_daemons_trees_are_no_strays_of_ours(lab, daemon_name):
    tree = await lab.start("say:ready", "sleep")
    other = choose(f"{daemon_name}b", lab.kind)
    assert list(other.list_strays(frozenset())) == []
    assert_emptied(await stop(tree), tree)


@everywhere
async def test_a_process_is_owned_inside_a_tree_only(lab):
    tree = await lab.start("escape", "say:ready", "sleep")
    assert lab.trees.owns(tree.identity.pid) is True
    assert not lab.trees.owns(os.getpid())
    if lab.kind != "fake":
        assert all(lab.trees.owns(pid) for pid in list_processes(tree))
    assert_emptied(await stop(tree), tree)
    assert not lab.trees.owns(tree.identity.pid)


@everywhere
async def test_usage_is_known_while_it_runs_and_after(lab):
    tree = await lab.start("spin:0.1", "say:ready", "sleep")
    usage = tree.usage()
    assert usage.processes >= 1
    assert usage.cpu_s >= 0.08  # counted in ticks of 10 ms
    assert usage.memory_bytes > 0
    assert_emptied(await stop(tree), tree)
    assert tree.usage().processes == 0
    tree.close()


# ---------------------------------------------------------------- freezing


@everywhere
async def test_a_frozen_tree_does_nothing_until_it_is_thawed(lab, tmp_path):
    go = tmp_path / "go"
    tree = await lab.start("say:ready", f"await:{go}", "exit:7")
    await tree.freeze()
    go.touch()
    with trio.move_on_after(0.1) as scope:
        await tree.wait_exit()
    assert scope.cancelled_caught
    await tree.thaw()
    with trio.fail_after(20):
        assert await tree.wait_exit() == Exit(status=7)
    assert_emptied(await tree.kill(POLICY), tree)


@everywhere
async def test_the_next_daemon_thaws_what_the_last_one_has_frozen(lab, tmp_path):
    go = tmp_path / "go"
    first = await lab.start("say:ready", f"await:{go}", "exit:7")
    await first.freeze()
    go.touch()
    second = await lab.make_trees().adopt(first.place, first.identity)
    await second.freeze()
    with trio.move_on_after(0.1) as scope:
        await second.wait_exit()
    assert scope.cancelled_caught
    await (await lab.make_trees().adopt(first.place, first.identity)).thaw()
    with trio.fail_after(20):
        assert await first.wait_exit() == await second.wait_exit() == Exit(status=7)
    assert_emptied(await second.kill(POLICY), second)


@everywhere
async def test_a_tree_may_be_frozen_and_thawed_again_and_again_or_without_need(lab, tmp_path):
    go = tmp_path / "go"
    tree = await lab.start("say:ready", f"await:{go}", "exit:7")
    await tree.thaw()
    for _ in range(3):
        await tree.freeze()
        await tree.freeze()
        await tree.thaw()
        await tree.thaw()
    go.touch()
    with trio.fail_after(20):
        assert await tree.wait_exit() == Exit(status=7)
    assert_emptied(await tree.kill(POLICY), tree)
    never = await lab.trees.adopt(lab.place(), None)
    for ended in (tree, never):
        with trio.fail_after(20):
            await ended.freeze()
            await ended.thaw()


@everywhere
@pytest.mark.parametrize("grace_s", [5, 0])
async def test_a_tree_that_was_frozen_is_stopped_and_killed(lab, grace_s):
    tree = await lab.start("child:2", "setsid", "say:ready", "sleep")
    await tree.freeze()
    report = await stop(tree, grace_s)
    assert report.signals == (("SIGTERM",) if grace_s else ("SIGKILL",))
    assert_emptied(report, tree)


@with_processes
@pytest.mark.parametrize("step", ["tick", "storm:5"])
async def test_nothing_of_a_frozen_tree_goes_on_and_nothing_new_begins(lab, step):
    tree = await lab.start("child:3", "escape", step, "say:ready", "sleep")
    for _ in range(5):
        with trio.fail_after(20):
            await tree.freeze()
        before = (sorted(list_processes(tree)), lab.output(tree))
        await trio.sleep(0.15)  # a storm would fork
        assert (sorted(list_processes(tree)), lab.output(tree)) == before
        await tree.thaw()
        if step == "tick":
            await lab.wait_output(tree, before[1] + "tick\n")
    assert_emptied(await stop(tree, grace_s=0.2), tree)


@with_processes
async def test_a_freeze_right_after_the_start_lets_nothing_through(lab):
    for _ in range(5):
        tree = await lab.trees.start(lab.place(), lab.command("say:ready", "sleep"))
        await tree.freeze()
        before = lab.output(tree)
        await trio.sleep(0.05)
        assert lab.output(tree) == before
        await tree.thaw()
        await lab.wait_output(tree, "ready\n")
        assert_emptied(await stop(tree), tree)


@with_processes
async def test_a_process_that_had_stopped_itself_stays_stopped(lab):
    tree = await lab.start("tick", "say:ready", "stop")
    [agent] = list_children(tree.identity.pid)
    await wait_state(agent, "T")
    await tree.freeze()
    before = lab.output(tree)
    await tree.thaw()
    await lab.wait_output(tree, before + "tick\n" * 3)
    assert state(agent) == "T"
    assert_emptied(await stop(tree), tree)


# ---------------------------------------------------------------- limits


@everywhere
async def test_controllers_are_of_those_that_limits_are_for(lab):
    assert lab.trees.controllers <= {"memory", "pids", "cpu"}
    if lab.kind == "subreaper":
        assert lab.trees.controllers == set()


@with_processes
async def test_limits_that_no_controller_holds_are_set_by_the_shim(lab):
    limits = Limits(memory_max_bytes=1 << 30, cpu_weight=50)
    command = structs.replace(lab.command("child:1", "say:ready", "sleep"), limits=limits)
    tree = await lab.trees.start(lab.place(), command)
    await lab.wait_output(tree, "ready\n")
    [agent] = list_children(tree.identity.pid)
    [child] = list_children(agent)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    data = 1 << 30 if "memory" not in lab.trees.controllers else resource.RLIM_INFINITY
    level = 3 if "cpu" not in lab.trees.controllers else 0
    for pid in (agent, child):
        assert resource.prlimit(pid, resource.RLIMIT_DATA) == (data, data)
        assert os.getpriority(os.PRIO_PROCESS, pid) == own + level
    assert os.getpriority(os.PRIO_PROCESS, tree.identity.pid) == own
    assert_emptied(await stop(tree), tree)


@with_processes
async def test_a_run_without_limits_has_those_of_the_daemon(lab):
    tree = await lab.start("say:ready", "sleep")
    [agent] = list_children(tree.identity.pid)
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        assert resource.prlimit(agent, limit) == resource.getrlimit(limit)
    assert os.getpriority(os.PRIO_PROCESS, agent) == os.getpriority(os.PRIO_PROCESS, 0)
    assert_emptied(await stop(tree), tree)


@everywhere
async def test_what_a_tree_used_is_known_of_one_that_ended_unseen(lab):
    first = await lab.start("spin:0.1", "exit:0")
    await first.wait_exit()
    second = await lab.make_trees().adopt(first.place, first.identity)
    assert_emptied(await second.kill(POLICY), second)
    usage = second.usage()
    assert (usage.processes, usage.memory_bytes, usage.out_of_memory) == (0, 0, None)
    if lab.kind == "cgroup":
        assert usage.cpu_s >= 0.08
    if lab.kind == "subreaper":
        assert usage.cpu_s is None, "nobody has looked while it ran"
    if lab.kind != "fake":
        left = await trio.Path(first.place.directory, "status").stat()
        assert usage.ended_at == left.st_mtime


# ---------------------------------------------------------------- cgroups alone


@in_cgroups
async def test_a_frozen_tree_is_stopped_and_killed(lab):
    for grace_s in (5, 0):
        tree = await lab.start("child:2", "say:ready", "sleep")
        leaf = Path(tree.place.cgroup)
        (leaf / "cgroup.freeze").write_text("1")
        await wait_text(f"{leaf}/cgroup.events", "frozen 1")
        report = await stop(tree, grace_s)
        assert report.signals == (("SIGTERM",) if grace_s else ("SIGKILL",))
        assert_emptied(report, tree)


@in_cgroups
async def test_a_tree_counts_as_frozen_once_the_kernel_says_so(lab):
    tree = await lab.start("storm:5", "child:20", "tick", "say:ready", "sleep")
    events = Path(tree.place.cgroup, "cgroup.events")
    for _ in range(20):
        await tree.freeze()
        assert "frozen 1" in events.read_text()  # noqa: ASYNC240 (at once)
        await tree.thaw()
    assert_emptied(await stop(tree, grace_s=0), tree)


@in_cgroups
async def test_groups_made_by_an_agent_go_with_it(lab):
    tree = await lab.start("subgroup:one", "subgroup:two", "say:ready", "sleep")
    assert tree.usage().processes == 4
    report = await tree.kill(POLICY)
    assert report.killed == 4
    assert_emptied(report, tree)


@in_cgroups
async def test_a_tree_keeps_its_containment_when_the_daemons_changes(lab, daemon_name):
    first = await lab.start("escape", "say:ready", "sleep")
    later = choose(daemon_name, Containment.SUBREAPER)
    set_subreaper(on=False)  # the trees of an earlier daemon are no descendants of the next
    assert_emptied(await (await later.adopt(first.place, first.identity)).kill(POLICY), first)
    await first.wait_exit()
    place = later.place("AR-2", "ar-2-impl", RunId(f"marked-{os.getpid()}"), first.place.directory)
    second = await later.start(place, lab.command("escape", "sleep"))
    again = await lab.trees.adopt(place, second.identity)
    assert_emptied(await again.kill(POLICY), second)
    await second.wait_exit()


@with_processes
async def test_waiting_for_a_stranger_ends_with_it(lab):
    process = await trio.lowlevel.open_process(["/bin/sleep", "0.05"])
    identity = identify(process.pid)
    assert identity is not None
    with trio.fail_after(5):
        await wait_ended(identity)
    assert await process.wait() == 0


# ------------------------------------------------------------------------------------ previewed


@pytest.mark.parametrize("lab", ALL, indirect=True)
async def test_a_preview_names_whom_a_stop_would_reach_and_touches_nobody(lab):
    tree = await lab.start("child:2", "say:ready", "sleep")
    root = tree.identity.pid
    seen = await trio.to_thread.run_sync(tree.preview, POLICY)
    assert root in seen.pids
    assert seen.skipped == ()
    again = await trio.to_thread.run_sync(tree.preview, POLICY)
    assert sorted(again.pids) == sorted(seen.pids)
    protected = StopPolicy(protected_pids=frozenset({root}))
    spared = await trio.to_thread.run_sync(tree.preview, protected)
    assert root not in spared.pids
    assert (root, "protected") in {(one.pid, one.reason) for one in spared.skipped}
    if lab.kind != "fake":
        assert set(seen.pids) == set(list_processes(tree))
    assert (await tree.kill(POLICY)).emptied
    gone = await trio.to_thread.run_sync(tree.preview, POLICY)
    assert (gone.pids, gone.skipped) == ((), ())
