"""A command is complete: what the daemon has and nobody asked for does not come along."""

import msgspec
import pytest

from factoryd.adapters.agents.command import CommandKind
from factoryd.core.assignment import Assignment
from factoryd.core.config import AgentConfig
from factoryd.core.model import Issue, Limits, RunId

ENVIRON = {"PATH": "/bin", "HOME": "/root", "AWS_SECRET": "hunter2", "FACTORY_ISSUE": "stale"}
RUN = RunId("ar-1-impl-0c")
VARIABLES = {
    "FACTORY_ISSUE": "AR-1",
    "FACTORY_ISSUE_FILE": "/s/issues/AR-1/issue.md",
    "FACTORY_TITLE": "Mend {it}",
    "FACTORY_AGENT": "ar-1-impl",
    "FACTORY_ROLE": "implementer",
    "FACTORY_ATTEMPT": "2",
    "FACTORY_ROUND": "3",
    "FACTORY_RUN": RUN,
    "FACTORY_SESSION": "",
    "FACTORY_WORKSPACE": "/w",
    "FACTORY_SOCKET": "/r/control.sock",
}


def work(*command, title="Mend {it}", feedback=None, **agent):
    config = AgentConfig(kind="command", name="impl", command=command or ("./go",), **agent)
    return Assignment(
        issue=Issue(key="AR-1", title=title),
        agent="ar-1-impl",
        role="implementer",
        config=config,
        attempt=2,
        round=3,
        stage=0,
        workspace="/w",
        issue_file="/s/issues/AR-1/issue.md",
        socket="/r/control.sock",
        feedback_file=feedback,
    )


def command(assignment, session=None):
    return CommandKind(ENVIRON).command(assignment, RUN, session)


def test_an_agent_gets_the_variables_it_was_promised_and_no_others():
    made = command(work())
    assert made.env == {"PATH": "/bin", "HOME": "/root"} | VARIABLES
    assert (made.argv, made.cwd, made.stdin, made.user) == (("./go",), "/w", None, None)


def test_only_what_is_passed_on_and_set_by_the_configuration_comes_along():
    made = command(work(pass_env=("AWS_SECRET", "MISSING"), env={"A": "1", "AWS_SECRET": "none"}))
    assert made.env == {"AWS_SECRET": "none", "A": "1"} | VARIABLES


def test_a_command_has_the_limits_of_its_agent_and_none_that_are_not_set():
    assert command(work()).limits == Limits()
    made = command(work(memory_max=1 << 30, pids_max=64, cpu_weight=50))
    assert made.limits == Limits(memory_max_bytes=1 << 30, pids_max=64, cpu_weight=50)


def test_placeholders_stay_inside_their_argument_whatever_they_hold():
    title = 'a "b" $(c) {issue.key} \n{session}'
    made = command(work("go", "-t={issue.title}", "{{literal}}", "{run}", title=title), "s 1")
    assert made.argv == ("go", f"-t={title}", "{literal}", RUN)
    assert made.env["FACTORY_TITLE"] == title
    assert made.env["FACTORY_SESSION"] == "s 1"


@pytest.mark.parametrize(
    ("placeholder", "value"),
    [
        ("issue.key", "AR-1"),
        ("issue_file", "/s/issues/AR-1/issue.md"),
        ("workspace", "/w"),
        ("round", "3"),
        ("attempt", "2"),
        ("session", ""),
    ],
)
def test_every_placeholder_has_its_value(placeholder, value):
    assert command(work("go", f"{{{placeholder}}}")).argv == ("go", value)


def test_what_no_program_can_be_given_is_left_out():
    made = command(work("go", "{issue.title}", title="a\0b"))
    assert made.argv == ("go", "ab")
    assert made.env["FACTORY_TITLE"] == "ab"


def test_a_reviewers_word_is_named_where_there_is_one():
    assert command(work(feedback="/f")).env["FACTORY_FEEDBACK_FILE"] == "/f"


def test_the_daemons_environment_is_not_touched():
    before = dict(ENVIRON)
    made = command(work())
    made.env["PATH"] = "/elsewhere"
    assert before == ENVIRON
    assert msgspec.structs.replace(made, env={}).env == {}
