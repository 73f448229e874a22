"""Every key of the configuration: its default, its bounds, the place of its mistakes."""

import datetime as dt
import re

import pytest

from factoryd.core.config_parse import parse_config
from factoryd.core.config_schema import describe
from factoryd.core.model import StopOrder
from tests.unit.configs import SMALL, change, find_document_mistakes, find_mistakes, parse


def read(config, key):
    value = config
    for step in re.findall(r"[^.\[\]]+", key):
        if isinstance(value, tuple):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value[step]
        else:
            value = getattr(value, step)
    return value


DEFAULTS = {
    "factory.slots": 5,
    "factory.poll_interval": 30.0,
    "factory.containment": "auto",
    "dispatch.max_attempts": 2,
    "dispatch.error_cooldown": 60.0,
    "dispatch.backoff_factor": 2.0,
    "dispatch.max_backoff": 300.0,
    "dispatch.time_limit": 14400.0,
    "resume.max_resumes": 3,
    "resume.delay": 1.0,
    "stop.signal": "SIGTERM",
    "stop.grace": 10.0,
    "stop.order": StopOrder.CHILDREN_FIRST,
    "safety.require_label": "factory",
    "safety.require_title_prefix": "",
    "safety.require_team": "",
    "protect.pids": (),
    "protect.commands": (),
    "heartbeat.interval": 15.0,
    "heartbeat.stale_after": 60.0,
    "reaper.interval": 60.0,
    "output.max_bytes_per_run": 67108864,
    "output.max_line_bytes": 10485760,
    "output.journal": True,
    "output.journal_rate": 1000,
    "access.operators": ("@factory-operators",),
    "access.readers": ("@factory-readers",),
    "history.keep": 2592000.0,
    "history.max_issues": 10000,
    "sources[0].name": "issues",
    "repos.demo.workspace": "worktree",
    "routes[0].project": None,
    "routes[0].team": None,
    "routes[0].keyword": None,
    "routes[0].default": False,
    "recipes.pair.max_rounds": 3,
    "recipes.pair.on_failure": "cancel",
    "agents.reviewer.name": "reviewer",
    "agents.implementer.pass_env": ("PATH", "HOME", "LANG"),
    "agents.implementer.env": {},
    "agents.implementer.stall_after": 0.0,
    "agents.implementer.memory_max": None,
    "agents.implementer.pids_max": 0,
    "agents.implementer.cpu_weight": 0,
}

GIVEN = {
    "sources[0].kind",
    "sources[0].path",
    "repos.demo.path",
    "routes[0].label",
    "routes[0].repo",
    "routes[0].recipe",
    "recipes.pair.stages",
    "agents.implementer.kind",
    "agents.implementer.command",
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_key_that_is_not_given_has_its_documented_default(key):
    assert read(parse(SMALL), key) == DEFAULTS[key]


def test_these_tests_name_every_key_there_is():
    plain = {re.sub(r"\[0\]|demo|pair|implementer|reviewer", "*", key) for key in DEFAULTS}
    plain |= {re.sub(r"\[0\]|demo|pair|implementer|reviewer", "*", key) for key in GIVEN}
    documented = {
        f"{section.title.strip('[]').replace('.NAME', '.*')}.{key.name}".replace(
            "sources.", "sources*."
        ).replace("routes.", "routes*.")
        for section in describe()
        for key in section.keys
    }
    assert plain == documented


ACCEPTED = [
    ("factory.slots", 1, 1),
    ("factory.slots", 1000, 1000),
    ("factory.poll_interval", "250ms", 0.25),
    ("factory.containment", "subreaper", "subreaper"),
    ("dispatch.max_attempts", 20, 20),
    ("dispatch.error_cooldown", "0s", 0.0),
    ("dispatch.backoff_factor", 3, 3.0),
    ("dispatch.time_limit", "0s", 0.0),
    ("stop.signal", "SIGINT", "SIGINT"),
    ("stop.order", "root-first", StopOrder.ROOT_FIRST),
    ("protect.pids", [1, 4242], (1, 4242)),
    ("protect.commands", ["sshd"], ("sshd",)),
    ("access.operators", ["ann", "@ops"], ("ann", "@ops")),
    ("reaper.interval", "50ms", 0.05),
    ("history.max_issues", 1, 1),
    ("recipes.pair.max_rounds", 100, 100),
    ("recipes.pair.on_failure", "wait", "wait"),
    ("agents.reviewer.name", "r2-d2", "r2-d2"),
    ("agents.reviewer.name", "a" * 31, "a" * 31),
    ("agents.reviewer.env", {"A": "b c"}, {"A": "b c"}),
    ("agents.reviewer.memory_max", "2G", 2 << 30),
    ("agents.reviewer.memory_max", "", None),
    ("agents.reviewer.pids_max", 2, 2),
    ("agents.reviewer.pids_max", 0, 0),
    ("agents.reviewer.cpu_weight", 1, 1),
    ("agents.reviewer.cpu_weight", 10_000, 10_000),
    ("agents.reviewer.stall_after", "2h", 7200.0),
    ("agents.reviewer.command", ["x", "{{}}", "--to={workspace}/y"], None),
]


@pytest.mark.parametrize(("key", "value", "meant"), ACCEPTED)
def test_a_value_within_bounds_is_taken(key, value, meant):
    config = parse_config(change(key, value), "f.toml")
    assert read(config, key) == (tuple(value) if key.endswith("command") else meant)


REFUSED = [
    ("factory.slots", 0, "a whole number from 1 to 1000, not 0"),
    ("factory.slots", 1001, "not 1001"),
    ("factory.slots", True, "not true"),
    ("factory.slots", 5.0, "not 5.0"),
    ("factory.slots", 1 << 100, "not a huge number"),
    ("factory.poll_interval", 30, 'a duration such as "30s", from 10ms to 24h, not 30'),
    ("factory.poll_interval", "0s", 'not "0s"'),
    ("factory.poll_interval", "30", 'not "30"'),
    ("factory.poll_interval", "1.5h", 'not "1.5h"'),
    ("factory.poll_interval", "1h30m", "not"),
    ("factory.poll_interval", "-1s", "not"),
    ("factory.poll_interval", "٣s", "not"),
    ("factory.poll_interval", "30s\n", "not"),
    ("factory.containment", "docker", '"auto" or "cgroup" or "subreaper", not "docker"'),
    ("dispatch.max_attempts", 21, "not 21"),
    ("dispatch.backoff_factor", float("nan"), "not nan"),
    ("dispatch.backoff_factor", float("inf"), "not inf"),
    ("dispatch.backoff_factor", 0.5, "not 0.5"),
    ("stop.signal", "SIGKILL", "cannot be caught"),
    ("stop.signal", "SIGSTOP", "cannot be caught"),
    ("stop.signal", "TERM", "no signal's name"),
    ("stop.order", "sideways", '"children-first" or "root-first"'),
    ("stop", 5, "a table, not 5"),
    ("safety.require_label", "a\0b", "must be text"),
    ("output.journal", 1, "true or false, not 1"),
    (
        "access.readers",
        "@ops",
        'a list, each a user\'s name, or a group\'s as "@group", not "@ops"',
    ),
    ("history.keep", dt.date(2020, 1, 1), "not a date"),
    ("reaper.interval", "0s", 'not "0s"'),
    ("history.max_issues", 0, "not 0"),
    ("sources[0].kind", "github", '"folder", not "github"'),
    ("sources[0].path", "", "text, not empty"),
    ("repos.demo.path", "", "is missing"),
    ("repos.demo.workspace", "tmp", '"worktree"'),
    ("routes[0].repo", "dome", "no [repos.dome]"),
    ("routes[0].recipe", "solo", "no [recipes.solo]"),
    ("recipes.pair.stages", [], "1 to 100 stages"),
    ("recipes.pair.max_rounds", 101, "not 101"),
    ("recipes.pair.on_failure", "panic", '"cancel" or "wait"'),
    ("agents.reviewer.kind", "magic", '"command"'),
    ("agents.reviewer.name", "Rev", "a name of a-z"),
    ("agents.reviewer.name", "-rev", "a name of a-z"),
    ("agents.reviewer.name", "a" * 32, "1 to 31 long"),
    ("agents.reviewer.name", "rev\n", "a name of a-z"),
    ("agents.reviewer.command", [], "an empty list"),
    ("agents.reviewer.command", "review", 'not "review"'),
    ("agents.reviewer.memory_max", "lots", 'a size such as "2G"'),
    ("agents.reviewer.memory_max", "1K", "from 1M"),
    ("agents.reviewer.pids_max", 1, "leaves no process to the agent"),
    ("agents.reviewer.pids_max", -1, "not -1"),
    ("agents.reviewer.cpu_weight", 10_001, "from 0 to 10000, not 10001"),
]


@pytest.mark.parametrize(("key", "value", "reason"), REFUSED)
def test_a_value_out_of_bounds_is_refused_by_its_key(key, value, reason):
    found = find_document_mistakes(change(key, value))
    assert list(found) == [key]
    assert reason in found[key]


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("protect.pids", [7, 0], "protect.pids[1]"),
        ("protect.commands", ["/bin/sh"], "protect.commands[0]"),
        ("recipes.pair.stages", [["implementer"], []], "recipes.pair.stages[1]"),
        ("recipes.pair.stages", [["implementer", "ghost"]], "recipes.pair.stages[0][1]"),
        ("agents.reviewer.command", ["x", 5], "agents.reviewer.command[1]"),
        ("agents.reviewer.command", ["x", "{issue.body}"], "agents.reviewer.command[1]"),
        ("agents.reviewer.command", ["x", '{"a": 1}'], "agents.reviewer.command[1]"),
        ("agents.reviewer.command", ["x", "a}"], "agents.reviewer.command[1]"),
        ("agents.reviewer.command", ["{issue.title}"], "agents.reviewer.command[0]"),
        ("agents.reviewer.command", [""], "agents.reviewer.command[0]"),
        ("agents.reviewer.pass_env", ["A", "B=C"], "agents.reviewer.pass_env[1]"),
        ("agents.reviewer.pass_env", ["FACTORY_RUN"], "agents.reviewer.pass_env[0]"),
        ("agents.reviewer.env", {"FACTORY_RUN": "x"}, "agents.reviewer.env.FACTORY_RUN"),
        ("agents.reviewer.env", {"a b": "x"}, 'agents.reviewer.env."a b"'),
        ("agents.reviewer.env", {"A": 1}, "agents.reviewer.env.A"),
        ("repos", {"demo": {"path": "x"}, "..": {"path": "x"}}, 'repos.".."'),
    ],
)
def test_a_mistake_inside_a_value_is_told_by_its_exact_place(key, value, place):
    assert list(find_document_mistakes(change(key, value))) == [place]


def test_an_agent_without_a_name_is_called_as_its_table_if_that_can_be_a_name():
    text = SMALL.replace("reviewer", "Reviewer_1")
    found = find_mistakes(text)
    assert list(found) == ["agents.Reviewer_1.name"]
