"""The report: a page with tables and plots, made from stored results alone."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import svg
from bench.results import Key, Results
from bench.sessions import PEERS
from bench.targets import BARE, OURS, WHY_MISSED
from bench.work import (
    crash,
    growing,
    idling,
    looking,
    output,
    starting,
    stopping,
    succession,
    tree,
)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
JSON = DOCS / "benchmarks.json"
PAGE = DOCS / "benchmarks.md"
README = ROOT / "README.md"
COUNTS = {
    stopping.SURVIVORS,
    tree.SURVIVORS,
    crash.LOST,
    crash.DUPLICATED,
    crash.ORPHANED,
    output.LOST,
}
"""What is not put in relation to anything: the number itself matters."""

METHOD = """\
All supervisors do the same work in one run and take turns; a table shows the median over all turns,
in brackets how many times factoryd's figure that is. Each has a cgroup of its own, so that whatever it
loses is still found, counted as a survivor, and ended before the next one's turn. Directories are in
memory, so the figures are not those of a disk. An agent is a shell script with a second process; it
reports over a named pipe when both are there, and the kernel tells by pidfd when a process has ended.
Peers are configured for the task as their documentation has it; nothing is patched.

- *Start*: from the request until the last agent has reported. What must be written before asking is
  written before. For runit the request is the start of runsvdir, which otherwise looks every few seconds.
- *Status*: by API, over an open connection or what comes nearest (the status files of s6 and runit);
  by command, the whole process.
- *Stop of a tree*: 22 processes, of which one is a daemon in a session of its own. A time is given only
  where nothing survived.
- *Stop of all*: every tenth ignores SIGTERM, so the grace of 2 s always passes; what came on top is shown. What
  took more than ten seconds was measured once.
- *Kill of the supervisor*: all of its own processes get SIGKILL at once and it is started again. Lost is
  an agent whose run ended by that, duplicated one that now runs twice, orphaned a process of the first
  runs that outlives a stop of everything.
- *Next run*: agents that ran for over a second exit with status 1.
- *Idle*: CPU of the supervisor and whatever it keeps running for its agents (shims, s6-supervise, runsv),
  all supervisors at the same time; memory (PSS) of each while it was alone. For systemd the helpers are
  all that runs in its container.
- *Output*: lines of 100 bytes, 1 MB/s from each agent, kept in a file for each. For factoryd the lag is
  what a client sees that follows by `Logs`, for the others what a reader of the file sees."""


def write(results: Results, docs: Path = DOCS) -> None:
    """Write the page and its plots."""
    for name, plot in _plots(results):
        (docs / f"benchmarks-{name}.svg").write_text(plot)
    (docs / PAGE.name).write_text("\n".join(_page(results)) + "\n")


def write_readme(results: Results, readme: Path = README) -> None:
    """Put at most three ratios on README's first screen, in place of those that are there."""
    begin, end = "<!-- measured -->", "<!-- /measured -->"
    block = "\n".join([begin, *_headlines(results), end])
    text = readme.read_text()
    if begin in text:
        text = re.sub(f"{begin}.*?{end}", lambda _: block, text, flags=re.DOTALL)
    else:
        picture = "\n```\n issues/ready"
        text = text.replace(picture, f"\n{block}\n{picture}", 1)
    readme.write_text(text)


def _headlines(results: Results) -> Iterator[str]:
    yield "Measured beside what one would use instead ([report](docs/benchmarks.md)):"
    yield ""
    for key, what in (
        (
            Key(tree.WORK, tree.SURVIVORS, OURS, 1),
            "a stopped tree of 22 processes leaves {} behind",
        ),
        (
            Key(crash.WORK, crash.DUPLICATED, OURS, 10),
            "of 10 agents whose supervisor is killed {} run twice",
        ),
    ):
        if counted := results.samples.get(key):
            yield f"- {what.format(svg.figure(max(counted)))}{_compared(results, key)};"
    ours, bare = (
        results.median(Key(starting.WORK, starting.PER_AGENT, name, 100)) for name in (OURS, BARE)
    )
    if ours and bare:
        times = svg.figure(ours / bare)
        yield f"- the start of 100 agents takes {times} times as long as in a bare `Popen` loop."


def _compared(results: Results, key: Key) -> str:
    """Return who else comes off as well, and who the worst."""
    found = {name: results.median(key._replace(peer=name)) for name in PEERS if name != OURS}
    theirs = {name: value for name, value in found.items() if value is not None}
    if not theirs:
        return ""
    worst = max(theirs.values())
    best = [name for name, value in theirs.items() if value == 0]
    also = f", as with {_list(best)}" if best else ""
    names = _list([name for name, value in theirs.items() if value == worst])
    return f"{also}; with {names} it is {worst:.0f}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _page(results: Results) -> Iterator[str]:
    machine = results.machine
    yield "# Benchmarks"
    yield ""
    yield "<!-- Written by `python -m bench report` from benchmarks.json; `make bench` measures anew. -->"
    yield ""
    yield (
        f"Measured on {machine['date']} by `make bench` in {machine.get('took', 'one run')}, on a machine of"
        f" {machine['cores']} cores with Linux {machine['kernel']} and Python {machine['python']}, whose"
        f" load was {machine['load before']} before."
    )
    yield ""
    yield from (
        "## What was compared",
        "",
        "| supervisor | version | configuration |",
        "|---|---|---|",
    )
    for name, version in results.versions.items():
        yield f"| {name} | {version} | {results.configured[name]} |"
    yield from ("", "## How", "", METHOD, "")
    yield from _works(results)
    yield from _growth(results)
    yield from _targets(results)


def _works(results: Results) -> Iterator[str]:
    sections = [
        ("Start", starting.WORK, [starting.PER_AGENT]),
        ("Status", looking.WORK, [looking.BY_API, looking.BY_COMMAND]),
        ("Stop of a tree of 22 processes", tree.WORK, [tree.SURVIVORS, tree.TOOK, tree.SAID]),
        (
            "Stop of all, one in ten ignoring SIGTERM",
            stopping.WORK,
            [stopping.SURVIVORS, stopping.TOOK],
        ),
        (
            "Kill of the supervisor",
            crash.WORK,
            [crash.LOST, crash.DUPLICATED, crash.ORPHANED, crash.BACK],
        ),
        ("Next run", succession.WORK, [succession.TOOK]),
        ("Idle", idling.WORK, [idling.CPU, idling.PSS, idling.PSS_ALL]),
        ("Output", output.WORK, [output.LOST, output.LAG, output.CPU, output.PSS, output.LATE]),
    ]
    for title, work, figures in sections:
        if any(key.work == work for key in results.samples):
            yield from (f"## {title}", "")
            yield from _table(results, work, figures)
            yield from (f"![{title}]({plot})" for plot in _plots_of(results, work))
            yield ""


def _table(results: Results, work: str, figures: Sequence[str]) -> Iterator[str]:
    """Yield a row for each supervisor, with a column for each figure and number of agents."""
    columns = [
        (figure, agents)
        for figure in figures
        for agents in sorted(
            {key.agents for key in results.samples if (key.work, key.figure) == (work, figure)}
        )
    ]
    several = len({agents for _, agents in columns}) > 1
    heads = [f"{figure}, {agents:,} agents" if several else figure for figure, agents in columns]
    yield f"| supervisor | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(heads)}"
    notes = []
    for name in PEERS:
        keys = [Key(work, figure, name, agents) for figure, agents in columns]
        reason = results.reasons.get((work, name))
        if reason:
            notes.append(f"{name}: {reason}.")
        if any(key in results.samples for key in keys):
            shown = f"**{name}**" if name == OURS else name
            yield f"| {shown} | {' | '.join(_cell(results, key) for key in keys)} |"
    yield from ("", *(f"{note}  " for note in notes))
    if notes:
        yield ""


def _cell(results: Results, key: Key) -> str:
    value = results.median(key)
    if value is None:
        return "-"
    if key.figure in COUNTS:
        worst = max(results.samples[key])
        return (
            svg.figure(value)
            if worst == value
            else f"{svg.figure(value)}, up to {svg.figure(worst)}"
        )
    ours = results.median(key._replace(peer=OURS))
    if key.peer == OURS or not ours or ours <= 0 or value <= 0:
        return svg.figure(value)
    return f"{svg.figure(value)} ({svg.figure(value / ours)})"


def _growth(results: Results) -> Iterator[str]:
    keys = [key for key in results.samples if key.work == growing.WORK]
    if not keys:
        return
    counts = sorted({key.agents for key in keys})
    yield from ("## Growth", "")
    yield (
        "The slope is that of a straight line through the logarithms: 1 is linear, 0 is constant."
        " What rises in proportion beyond a fixed part has a slope below 1, which tends to 1; a knee would"
        " show as a slope of the last step far above it."
    )
    yield from (
        "",
        f"| figure | supervisor | {' | '.join(f'{n:,}' for n in counts)} | slope | last step |",
    )
    yield f"|---|---|{'--:|' * (len(counts) + 2)}"
    for figure in dict.fromkeys(key.figure for key in keys):
        for name in dict.fromkeys(key.peer for key in keys if key.figure == figure):
            points = _points(results, figure, name)
            values = dict(points)
            cells = [svg.figure(values[n]) if n in values else "-" for n in counts]
            slopes = [_slope(points), _slope(points[-2:])]
            yield f"| {figure} | {name} | {' | '.join([*cells, *slopes])} |"
    yield ""
    yield from (f"![Growth]({plot})" for plot in _plots_of(results, growing.WORK))
    yield ""


def _points(results: Results, figure: str, name: str) -> list[tuple[float, float]]:
    found = [
        (key.agents, results.median(key))
        for key in results.samples
        if (key.work, key.figure, key.peer) == (growing.WORK, figure, name)
    ]
    return [(agents, value) for agents, value in found if value is not None]


def _slope(points: Sequence[tuple[float, float]]) -> str:
    """Return the exponent with which a figure grows, by least squares over logarithms."""
    known = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(known) < 2:
        return "-"
    mid_x = sum(x for x, _ in known) / len(known)
    mid_y = sum(y for _, y in known) / len(known)
    over = sum((x - mid_x) ** 2 for x, _ in known)
    return f"{sum((x - mid_x) * (y - mid_y) for x, y in known) / over:.2f}"


def _targets(results: Results) -> Iterator[str]:
    if not results.targets:
        return
    yield from (
        "## Targets",
        "",
        "| figure | value | compared with | ratio | target | |",
        "|---|--:|--:|--:|---|---|",
    )
    for one in results.targets:
        baseline, ratio = (
            "-" if one[name] is None else svg.figure(one[name]) for name in ("baseline", "ratio")
        )
        met = "met" if one["met"] else "**missed**"
        yield f"| {one['name']} | {svg.figure(one['value'])} | {baseline} | {ratio} | {one['target']} | {met} |"
    missed = [one["name"] for one in results.targets if not one["met"]]
    for begin, why in WHY_MISSED.items():
        names = [f"*{name}*" for name in missed if name.startswith(begin)]
        if names:
            yield from (
                "",
                f"Why {_list(names)} {'is' if len(names) == 1 else 'are'} missed: {why}",
            )


def _plots_of(results: Results, work: str) -> list[str]:
    return [
        f"benchmarks-{name}.svg"
        for name, _ in _plots(results)
        if name.startswith(work.replace(" ", "-"))
    ]


def _plots(results: Results) -> Iterator[tuple[str, str]]:
    """Yield the plots, each with its name, which begins with the work it is of."""
    shown = [
        (
            "start",
            f"Start of 100 agents: {starting.PER_AGENT}",
            starting.WORK,
            starting.PER_AGENT,
            100,
        ),
        ("status", f"Status of 100 agents: {looking.BY_API}", looking.WORK, looking.BY_API, 100),
        ("tree", "Survivors of a stopped tree of 22 processes", tree.WORK, tree.SURVIVORS, 1),
        (
            "crash",
            "Agents of 10 that run twice after their supervisor was killed",
            crash.WORK,
            crash.DUPLICATED,
            10,
        ),
        ("next-run", "Exit to next run (ms)", succession.WORK, succession.TOOK, 1),
        ("idle", f"100 idle agents: {idling.PSS_ALL}", idling.WORK, idling.PSS_ALL, 100),
    ]
    for name, title, work, figure, agents in shown:
        values = {peer: results.median(Key(work, figure, peer, agents)) for peer in PEERS}
        known = {peer: value for peer, value in values.items() if value is not None}
        if known:
            yield name, svg.bars(title, known, OURS)
    for name, figure in (("growth-start", growing.START), ("growth-status", growing.STATUS)):
        series = {peer: _points(results, figure, peer) for peer in growing.PEERS}
        if any(series.values()):
            yield name, svg.lines(f"{figure} by number of agents", series)
