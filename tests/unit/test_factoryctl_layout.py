"""What status, health, kill and events look like, as text and on a terminal."""

from datetime import UTC, datetime
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from factoryctl.layout import (
    COLUMNS,
    age,
    lay_out,
    plain_health,
    plain_killed,
    plain_picture,
)
from factoryctl.output import printable
from factoryctl.render import render
from factoryd.core.events import IssueClaimed, IssueParked, encode_fact
from factoryd.core.model import Issue
from factoryd.wire.answers import FactView, HealthReply, PulseView
from factoryd.wire.plain import duration, size
from factoryd.wire.retelling import plain_fact
from tests.unit.ctl import agent, failing_source, handoff, issue, killed, status

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def draw(reply, **options):
    shown = StringIO()
    Console(file=shown, force_terminal=True, width=100, _environ={}, **options).print(
        render(lay_out(reply, NOW))
    )
    return shown.getvalue()


def plain(reply):
    return plain_picture(lay_out(reply, NOW)).splitlines()


def test_a_terminal_shows_the_daemon_its_issues_and_the_agents_beneath_each():
    one = issue("AR-1", agents=(agent("ar-1-impl"), agent("ar-1-review", state="starting")))
    shown = draw(status(one, issue("AR-2")), color_system=None).splitlines()
    assert shown[0].startswith("factoryd 0.1.0 running: pid 1, up 2h00m, 4 of 5 slots free")
    names = [line.split()[0] for line in shown if "impl" in line or "AR-" in line or "rev" in line]
    assert names == ["AR-1", "ar-1-impl", "ar-1-review", "AR-2", "ar-255-impl"]
    assert max(map(len, shown)) <= 100


def test_the_controllers_in_use_are_shown_beside_the_containment():
    reply = status()
    assert "containment cgroup, heartbeat" in plain(reply)[0]
    daemon = msgspec.structs.replace(reply.daemon, controllers=("cpu", "memory"))
    with_controllers = msgspec.structs.replace(reply, daemon=daemon)
    assert "containment cgroup (cpu, memory), heartbeat" in plain(with_controllers)[0]


def test_every_column_a_person_asks_for_fits_on_a_hundred_characters():
    shown = draw(status(issue(), issue(key="AR-256", reason="review rounds used up")))
    for word in ("running", "1h00m", "2/0", "4242", "1m15s", "118M", "Mend the login"):
        assert word in shown
    assert "\u2026" not in shown


def test_what_needs_attention_is_red():
    shown = draw(
        status(
            issue(), degraded=("source issues",), sources=(failing_source(),), handoffs=(handoff(),)
        )
    )
    red = [line for line in shown.splitlines() if line.startswith("\x1b[31m")]
    assert [line.split("m", 1)[1].split(":")[0] for line in red] == [
        "degraded",
        "source issues (folder) failing",
        "not emptied for 30s",
    ]
    assert "\x1b[31m" not in draw(status(issue()))


def test_nothing_that_an_issue_says_steers_the_terminal():
    evil = "\x1b]0;pwned\x07\x9b31m\r\nnext [red]markup[/red] :bomb:"
    hostile = status(
        issue(title=evil, reason=evil, agents=(agent(f"a{evil}", state=evil),)),
        degraded=(evil,),
        handoffs=(handoff(),),
    )
    for text in (draw(hostile, color_system=None), "\n".join(plain(hostile))):
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\r"}
    assert "[red]markup[/red] :bomb:" in "\n".join(plain(hostile))


def test_a_tab_is_no_control_character():
    assert printable("a\tb\x00\x7f\x85é") == "a\tb\\x00\\x7f\\x85é"


def test_piped_text_has_the_same_columns_in_every_line():
    lines = plain(status(issue(title="", agents=(agent(pid=None, cpu_s=None),))))
    header = next(line for line in lines if line.startswith("issue/agent"))
    rows = lines[lines.index(header) + 1 : lines.index(header) + 3]
    assert tuple(header.split()) == COLUMNS
    assert [len(row.split()) for row in rows] == [len(COLUMNS)] * 2
    unknown = dict(zip(COLUMNS, rows[1].split(), strict=True))
    assert (unknown["pid"], unknown["cpu"], unknown["output"]) == ("-", "-", "-")


def test_an_empty_factory_says_so():
    assert "no issues" in plain(status())
    assert "no issues" in draw(status())


def test_a_source_that_fails_without_saying_why_is_named():
    mute = msgspec.structs.replace(failing_source(), problems=())
    assert "source issues (folder) failing" in plain(status(sources=(mute,)))


def test_an_issue_that_waits_says_until_when_and_why():
    waiting = issue(state="cooldown", reason="exit 1", not_before="2026-01-01T12:01:00Z")
    assert "exit 1 | again at 2026-01-01T12:01:00Z | Mend the login" in "\n".join(
        plain(status(waiting))
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-0.2, "0.0s"),
        (0.05, "0.1s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (90000, "1d01h"),
    ],
)
def test_durations_have_at_most_two_units(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0B"), (999, "999B"), (1000, "1.0K"), (10240, "10K"), (5 << 40, "5.0T")],
)
def test_sizes_have_the_unit_that_suits_them(count, text):
    assert size(count) == text


def test_an_age_that_cannot_be_told_is_unknown():
    assert [age(moment, NOW) for moment in (None, "", "yesterday", "2026-01-01")] == ["-"] * 4


def test_health_names_what_is_late():
    late = PulseView(name="source issues", silent_s=42.0, max_silence_s=30.0, late=True)
    fine = PulseView(name="ledger", silent_s=0.5, max_silence_s=30.0, late=False)
    health = HealthReply(
        state="degraded",
        pid=12,
        degraded=("source issues",),
        heartbeat_age_s=None,
        pulses=(late, fine),
    )
    lines = plain_health(health).splitlines()
    assert lines[0] == "degraded: factoryd (pid 12), newest heartbeat - ago"
    assert lines[1] == "degraded: source issues"
    assert lines[3].split() == ["source", "issues", "42s", "30s", "late"]
    assert lines[4].split() == ["ledger", "0.5s", "30s"]


def test_a_kill_report_names_signals_skips_and_survivors():
    assert plain_killed(killed()) == (
        "ar-255-impl  r1  emptied  3 ended by SIGTERM+SIGKILL, skipped 1: protected  0.1s"
    )
    left = plain_killed(killed(emptied=False, survivors=2, signals=(), skipped=()))
    assert "NOT EMPTIED, 2 left" in left
    assert "no signal" in left


def fact_view(fact, run=None):
    body = msgspec.Raw(encode_fact(fact))
    return FactView(seq=3, at="2026-01-01T12:00:00.000Z", kind="k", issue="A-1", run=run, body=body)


def test_an_event_is_one_line_with_its_own_members():
    parked = plain_fact(fact_view(IssueParked(issue="A-1", reason="no\x9bmore"), run="r1"))
    assert parked.split()[-3:] == ["A-1", "r1", 'reason="no\\x9bmore"']
    work = Issue(key="A-1", title="T")
    claimed = plain_fact(fact_view(IssueClaimed(issue="A-1", work=work, repo="x", recipe="y")))
    assert claimed.split()[-4:] == ["A-1", "-", 'repo="x"', 'recipe="y"']
    assert "\n" not in parked + claimed
