"""What an agent is told about its part."""

from typing import Any

from factoryd.core.assignment import (
    Assignment,
    agent_name,
    factory_variables,
    placeholder_values,
)
from factoryd.core.config import AgentConfig
from factoryd.core.model import RunId
from factoryd.core.template import PLACEHOLDERS
from tests.unit.samples import issue

CONFIG = AgentConfig(kind="command", name="impl", command=("true",))


def work(**fields):
    told: dict[str, Any] = {
        "issue": issue("AR-255", title="Mend it"),
        "agent": "ar-255-impl",
        "role": "implementer",
        "config": CONFIG,
        "attempt": 2,
        "round": 3,
        "stage": 0,
        "workspace": "/w",
        "issue_file": "/i.md",
        "socket": "/s",
    }
    return Assignment(**(told | fields))


def test_an_agent_is_named_after_its_issue_and_its_configured_name():
    assert agent_name("AR-255", "implementer", CONFIG) == "ar-255-impl"


def test_an_agent_without_a_configured_name_is_named_after_its_role():
    config = AgentConfig(kind="command", command=("true",))
    assert agent_name("AR-255", "reviewer", config) == "ar-255-reviewer"


def test_an_agent_sees_the_variables_that_the_contract_promises():
    assert factory_variables(work(), RunId("r1"), "s1") == {
        "FACTORY_ISSUE": "AR-255",
        "FACTORY_ISSUE_FILE": "/i.md",
        "FACTORY_TITLE": "Mend it",
        "FACTORY_AGENT": "ar-255-impl",
        "FACTORY_ROLE": "implementer",
        "FACTORY_ATTEMPT": "2",
        "FACTORY_ROUND": "3",
        "FACTORY_RUN": "r1",
        "FACTORY_SESSION": "s1",
        "FACTORY_WORKSPACE": "/w",
        "FACTORY_SOCKET": "/s",
    }


def test_an_agent_of_a_later_round_is_told_where_the_feedback_is():
    told = factory_variables(work(feedback_file="/f.md"), RunId("r1"), None)
    assert told["FACTORY_FEEDBACK_FILE"] == "/f.md"
    assert told["FACTORY_SESSION"] == ""


def test_a_nul_in_a_title_cannot_spoil_the_environment():
    told = factory_variables(work(issue=issue(title="a\0b")), RunId("r1"), None)
    assert told["FACTORY_TITLE"] == "ab"


def test_every_placeholder_has_a_value():
    assert set(placeholder_values(work(), RunId("r1"), None)) == set(PLACEHOLDERS)
