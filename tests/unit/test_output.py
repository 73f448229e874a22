"""Following what runs print: every line once, bounded in memory and on disk."""

import contextlib
import os
import tracemalloc
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st
from typing_extensions import override

from factoryd.adapters import output
from factoryd.adapters.inotify import Watches
from factoryd.adapters.output import Follower, LineCutter, read_lines, read_tail
from factoryd.core.config import OutputConfig
from factoryd.core.model import RunId, TreePlace

MIB = 1024 * 1024


class Seen:
    """A sink and a progress that remember."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.advances: list[int] = []
        self.lines: list[str] = []
        self.offsets: list[int] = []
        self.keep = True
        self.count = 0
        self._changed = trio.Event()

    def line(self, place: TreePlace, offset: int, text: str) -> None:
        self.count += 1
        if self.keep:
            self.lines.append(text)
            self.offsets.append(offset)

    def advance(self, offset: int) -> None:
        self.offset = offset
        self.advances.append(offset)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_until(self, offset: int) -> None:
        with trio.fail_after(20):
            while self.offset < offset:
                await self._changed.wait()


@pytest.fixture
def place(tmp_path: Path) -> TreePlace:
    return TreePlace(run=RunId("r"), issue="AR-1", agent="a", directory=str(tmp_path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "output"


def bounds(max_bytes, max_line):
    return OutputConfig(max_bytes_per_run=max_bytes, max_line_bytes=max_line)


@contextlib.asynccontextmanager
async def following(place, seen, *, max_bytes=64 * MIB, max_line=10 * MIB):
    with contextlib.closing(Watches()) as watches:
        follower = Follower(watches, seen, lambda: bounds(max_bytes, max_line))
        async with trio.open_nursery() as nursery:
            await nursery.start(watches.run)
            nursery.start_soon(follower.follow, place, seen.offset, seen)
            yield
            nursery.cancel_scope.cancel()


async def drain(place, seen, *, max_bytes=64 * MIB, max_line=10 * MIB):
    with contextlib.closing(Watches()) as watches:
        follower = Follower(watches, seen, lambda: bounds(max_bytes, max_line))
        await follower.drain(place, seen)


def append(file: Path, data: bytes) -> int:
    with file.open("ab") as stream:
        stream.write(data)
    return file.stat().st_size


def disk_use(file: Path) -> int:
    return file.stat().st_blocks * 512


async def test_lines_are_passed_on_as_they_are_written(place, file):
    file.touch()
    seen = Seen()
    async with following(place, seen):
        for text in ("one", "two", "three"):
            await seen.wait_until(append(file, f"{text}\n".encode()))
    assert seen.lines == ["one", "two", "three"]
    assert seen.offsets == [4, 8, 14]


async def test_an_unfinished_line_waits_for_its_end_and_counts_as_a_sign_of_life(place, file):
    file.touch()
    seen = Seen()
    async with following(place, seen):
        append(file, b"half")
        with trio.fail_after(5):
            while not seen.advances:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert (seen.lines, seen.offset) == ([], 0)
        append(file, b" done\r\nnext")
        await seen.wait_until(len(b"half done\r\n"))
    assert (seen.lines, seen.offset) == (["half done"], 11)


async def test_draining_passes_on_the_rest_with_an_unfinished_last_line(place, file):
    size = append(file, b"one\ntwo\nrest")
    seen = Seen(offset=4)
    for _ in range(2):
        await drain(place, seen)
        assert (seen.lines, seen.offset) == (["two", "rest"], size)


async def test_draining_a_run_that_never_wrote_is_no_error(place):
    seen = Seen()
    await drain(place, seen)
    assert seen.advances == []


async def test_a_follower_cancelled_anywhere_and_a_drain_pass_on_every_line_once(place, file):
    expected = [str(number) for number in range(20_000)]
    append(file, "".join(f"{line}\n" for line in expected).encode())
    seen = Seen()
    for stop_at in (1, 40_000, 70_000):
        async with following(place, seen):
            await seen.wait_until(stop_at)
    await drain(place, seen)
    assert seen.lines == expected


async def test_a_file_that_does_not_exist_yet_is_waited_for(place, file):
    seen = Seen()
    async with following(place, seen):
        await trio.testing.wait_all_tasks_blocked()
        await seen.wait_until(append(file, b"hello\n"))
    assert seen.lines == ["hello"]


async def test_bytes_that_are_no_text_are_replaced(place, file):
    append(file, b"\xff\xfe ok \0\n\xe2\x82\xac\n")
    seen = Seen()
    async with following(place, seen):
        await seen.wait_until(12)
    assert seen.lines == ["\ufffd\ufffd ok \0", "€"]


async def test_a_long_line_is_cut_and_marked_and_the_next_is_whole(place, file):
    file.touch()
    seen = Seen()
    async with following(place, seen, max_line=64):
        size = append(file, b"x" * 100)
        await seen.wait_until(size)
        assert seen.lines == [f"{'x' * 64}… [cut: line of over 64 bytes]"]
        append(file, b"y" * 100)
        await seen.wait_until(append(file, b"\nshort\n" + b"z" * 65 + b"\n" + b"e" * 64 + b"\n"))
    assert seen.lines[1:] == ["short", f"{'z' * 64}… [cut: line of over 64 bytes]", "e" * 64]


async def test_a_long_line_is_not_taken_up_again_in_its_middle_after_a_restart(place, file):
    size = append(file, b"x" * 100)
    seen = Seen()
    async with following(place, seen, max_line=64):
        await seen.wait_until(size)
    size = append(file, b"x" * 100 + b"\nnext\n")
    async with following(place, seen, max_line=64):
        await seen.wait_until(size)
    await drain(place, seen, max_line=64)
    assert seen.lines == [f"{'x' * 64}… [cut: line of over 64 bytes]", "next"]


def test_a_cut_never_tears_a_character():
    ((_, text),) = LineCutter(0, 64).feed("€".encode() * 30)
    assert text == "€" * 21 + "… [cut: line of over 64 bytes]"


@given(
    lines=st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)),
    cuts=st.lists(st.integers(1, 40)),
)
def test_however_the_bytes_arrive_the_lines_are_the_same(lines, cuts):
    stream = b"".join(line + b"\n" for line in lines)
    cutter = LineCutter(7, 30)
    found: list[tuple[int, str]] = []
    rest = stream
    for cut in cuts:
        found += cutter.feed(rest[:cut])
        assert cutter.offset == 7 + stream.rfind(b"\n", 0, cutter.position - 7) + 1
        rest = rest[cut:]
    found += cutter.feed(rest)
    assert [text for _, text in found] == [
        line.decode("utf-8", "replace").removesuffix("\r") for line in lines
    ]
    assert cutter.offset == cutter.position == 7 + len(stream)
    assert list(cutter.finish()) == []


@pytest.mark.slow
async def test_200_mb_without_a_newline_cost_no_more_than_a_line(place, file):
    seen = Seen()
    file.touch()
    piece = b"x" * MIB
    tracemalloc.start()
    async with following(place, seen, max_bytes=4 * MIB, max_line=MIB):
        for _ in range(200):
            await seen.wait_until(append(file, piece) - MIB)
        await seen.wait_until(200 * MIB)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (line,) = seen.lines
    assert line.endswith("… [cut: line of over 1048576 bytes]")
    assert peak < 8 * MIB
    assert file.stat().st_size == 200 * MIB
    assert disk_use(file) <= 5 * MIB


async def test_what_is_passed_on_and_too_old_is_freed_and_offsets_stay_valid(place, file):
    line = b"0123456789abcde\n"
    seen = Seen()
    file.touch()
    async with following(place, seen, max_bytes=MIB):
        for _ in range(16):
            size = append(file, line * (MIB // len(line)))
            await seen.wait_until(size)
    assert seen.count == 16 * MIB // len(line)
    assert file.stat().st_size == 16 * MIB
    assert MIB <= disk_use(file) <= MIB + MIB // 8
    with file.open("rb") as stream:
        stream.seek(-MIB, os.SEEK_END)
        assert stream.read() == line * (MIB // len(line))


async def test_what_was_not_read_is_not_freed(place, file):
    seen = Seen()
    size = append(file, b"x" * (4 * MIB))
    async with following(place, seen, max_bytes=4096):
        with trio.fail_after(5):
            while len(seen.advances) < 16:
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert disk_use(file) >= 4 * MIB
    append(file, b"\n")
    await drain(place, seen, max_bytes=4096)
    assert seen.lines == ["x" * size]
    assert disk_use(file) <= 64 * 1024


async def test_freed_parts_are_passed_over_after_a_restart(place, file):
    seen = Seen()
    line = b"0123456789abcde\n"
    size = append(file, line * (4 * MIB // len(line)))
    async with following(place, seen, max_bytes=MIB):
        await seen.wait_until(size)
    again = Seen()  # an offset from before, as a crash leaves it
    async with following(place, again, max_bytes=MIB):
        await again.wait_until(size)
    assert set(again.lines) == {"0123456789abcde"}
    assert MIB // len(line) - 1 <= again.count <= 2 * MIB // len(line)
    again = Seen(offset=seen.offset)
    append(file, b"new\n")
    async with following(place, again, max_bytes=MIB):
        await again.wait_until(size + 4)
    assert again.lines == ["new"]


async def test_a_line_that_begins_on_a_page_is_not_lost_after_a_restart(place, file):
    seen = Seen()
    expected = [f"{number:04095}" for number in range(512)]
    append(file, "".join(f"{line}\n" for line in expected).encode())
    for stop_at in (1, 1_000_000):
        async with following(place, seen, max_bytes=4096):
            await seen.wait_until(stop_at)
    await drain(place, seen, max_bytes=4096)
    assert seen.lines == expected
    assert disk_use(file) <= 64 * 1024


async def test_a_file_system_that_frees_nothing_is_noted_once(place, file, monkeypatch, caplog):
    def refuse(_self: object, _size: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(output._Output, "free", refuse)
    seen = Seen()
    async with following(place, seen, max_bytes=4096):
        for _ in range(3):
            await seen.wait_until(append(file, b"x" * 4095 + b"\n"))
    assert len(caplog.records) == 1
    assert "output of agents is not bounded" in caplog.text
    assert seen.count == 3


async def test_a_writer_that_is_far_ahead_loses_the_oldest_and_a_line_says_so(place, file):
    seen = Seen()
    line = b"0123456789abcde\n"
    size = append(file, line * (20 * MIB // len(line)))
    async with following(place, seen, max_bytes=MIB):
        await seen.wait_until(size)
    assert seen.lines[0] == f"… [skipped: {4 * MIB} bytes, written too fast]"
    assert seen.count == 1 + 16 * MIB // len(line)


async def test_an_agent_that_truncates_its_output_is_followed_from_the_start(place, file):
    seen = Seen()
    append(file, b"a long first line\n")
    async with following(place, seen):
        await seen.wait_until(18)
        os.truncate(file, 0)
        append(file, b"new\n")
        with trio.fail_after(5):
            while seen.lines[-1] != "new":
                await trio.testing.wait_all_tasks_blocked(0.01)
    assert seen.lines == ["a long first line", "new"]


async def test_a_hole_as_large_as_an_agent_likes_costs_nothing(place, file):
    seen = Seen()
    append(file, b"one\n")
    os.truncate(file, 1 << 40)
    append(file, b"\ntwo\n")
    with trio.fail_after(5):
        async with following(place, seen):
            await seen.wait_until((1 << 40) + 5)
    assert seen.lines[-1] == "two"


@pytest.mark.parametrize("what", ["pipe", "link", "directory"])
async def test_what_is_no_regular_file_is_not_followed(place, file, tmp_path, what):
    if what == "pipe":
        os.mkfifo(file)
    elif what == "link":
        (tmp_path / "other").write_text("secret\n")
        file.symlink_to(tmp_path / "other")
    else:
        file.mkdir()
    seen = Seen()
    await drain(place, seen)
    async with following(place, seen):
        await trio.testing.wait_all_tasks_blocked()
    assert seen.lines == []
    assert read_tail(file, 10) == []
    assert read_lines(file, 0, 10) == []


def test_the_tail_is_the_last_lines_with_where_they_end(file):
    append(file, b"one\ntwo\nthree\nrest")
    assert read_tail(file, 2) == [(14, "three"), (18, "rest")]
    assert read_tail(file, 99) == [(4, "one"), (8, "two"), (14, "three"), (18, "rest")]
    assert read_tail(file, 0) == []
    assert read_tail(file, 99, max_bytes=12) == [(14, "three"), (18, "rest")]
    assert read_tail(file, 99, max_bytes=10) == [(14, "three"), (18, "rest")]
    assert read_tail(file, 99, max_bytes=2) == [(18, "st")]


async def test_the_tail_of_a_freed_file_has_no_hole_in_it(place, file):
    seen = Seen()
    line = b"0123456789abcde\n"
    size = append(file, line * (4 * MIB // len(line)))
    async with following(place, seen, max_bytes=MIB):
        await seen.wait_until(size)
    assert {text for _, text in read_tail(file, 1 << 30)} == {"0123456789abcde"}


def test_no_file_has_no_lines(file):
    assert read_tail(file, 10) == []
    assert read_lines(file, 0, 10) == []


def test_lines_are_read_on_from_where_the_last_one_ended(file):
    expected = [str(number) for number in range(5000)]
    append(file, "".join(f"{line}\n" for line in expected).encode() + b"unfinished")
    found: list[str] = []
    offset = 0
    while lines := read_lines(file, offset, 999):
        assert len(lines) <= 999
        found += [text for _, text in lines]
        offset = lines[-1][0]
    assert found == expected
    append(file, b" no more\n" + b"x" * 100_000 + b"\nend\n")
    (_, first), (_, second), (_, third) = read_lines(file, offset, 10)
    assert (first, third) == ("unfinished no more", "end")
    assert second.startswith("xxx")
    assert "[cut" in second


async def test_a_file_that_grows_faster_than_it_is_read_stays_bounded(place, file):
    """What is written while lines are passed on counts at the next chunk, not after the last."""
    most, some = 0, (b"x" * 99 + b"\n") * 1000

    class Hurried(Seen):
        @override
        def line(self, place: TreePlace, offset: int, text: str) -> None:
            nonlocal most
            self.count += 1
            if file.stat().st_size < 70 * MIB and self.count % 100 == 0:
                append(file, some)  # ten times as fast as it is read
                most = max(most, disk_use(file))

    seen = Hurried()
    append(file, some)
    async with following(place, seen, max_bytes=MIB):
        await seen.wait_until(70 * MIB)
    assert most < 50 * MIB
