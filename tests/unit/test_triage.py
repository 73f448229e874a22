"""The scope gate and the choice of route."""

import pytest

from factoryd.core.config import SafetyConfig
from factoryd.core.triage import Routed, Unrouted, choose_route, refuse_scope
from tests.unit.configs import SMALL, parse
from tests.unit.samples import issue

OPEN = {"require_label": "", "require_title_prefix": "", "require_team": ""}


def gate(**lines):
    return SafetyConfig(**(OPEN | lines))


@pytest.mark.parametrize("labels", [("factory",), ("Factory",), ("bug", "FACTORY")])
def test_a_label_passes_in_any_case(labels):
    assert refuse_scope(issue(labels=labels), gate(require_label="factory")) is None


@pytest.mark.parametrize("labels", [(), ("factory-x",), ("xfactory",), ("fac", "tory"), (" ",)])
def test_a_label_that_is_only_like_the_required_one_does_not_pass(labels):
    refusal = refuse_scope(issue(labels=labels, body="factory"), gate(require_label="factory"))
    assert refusal == "out of scope: it lacks the label 'factory'"


@pytest.mark.parametrize("title", ["[factory]", "[factory] x", "[factory] [other] x"])
def test_a_title_passes_with_the_prefix_and_an_end_or_one_space(title):
    assert refuse_scope(issue(title=title), gate(require_title_prefix="[factory]")) is None


@pytest.mark.parametrize(
    "title",
    [
        "[factory]x",
        "[factory]:x",
        "[factory]  x",
        "[factory]\tx",
        "[Factory] x",
        "[FACTORY] x",
        " [factory] x",
        "x [factory] x",
        "[factor] x",
        "",
    ],
)
def test_a_title_that_is_only_near_the_prefix_does_not_pass(title):
    close = issue(title=title, body="[factory] x", labels=("[factory]",))
    refusal = refuse_scope(close, gate(require_title_prefix="[factory]"))
    assert refusal == "out of scope: its title does not start with '[factory]' and one space"


def test_a_prefix_is_text_and_not_a_pattern():
    assert refuse_scope(issue(title="axb c"), gate(require_title_prefix="a.b")) is not None


def test_an_issue_without_a_team_passes_and_one_of_another_team_does_not():
    team = gate(require_team="core")
    assert refuse_scope(issue(team=None), team) is None
    assert refuse_scope(issue(team="core"), team) is None
    assert refuse_scope(issue(team="Core"), team) == "out of scope: its team is 'Core', not 'core'"


def test_every_line_that_is_set_must_pass():
    both = gate(require_label="factory", require_title_prefix="[f]")
    assert refuse_scope(issue(title="[f] x"), both) is None
    assert refuse_scope(issue(title="x"), both) is not None
    assert refuse_scope(issue(title="[f] x", labels=()), both) is not None


def test_an_open_gate_lets_everything_pass():
    assert refuse_scope(issue(labels=(), title=""), gate()) is None


ROUTES = """
[repos.by-default]
path = "d"
[repos.by-keyword]
path = "k"
[repos.by-team]
path = "t"
[repos.by-project]
path = "p"
[repos.by-label]
path = "l"
[repos.second-label]
path = "l2"

[[routes]]
default = true
repo = "by-default"
recipe = "pair"
[[routes]]
keyword = "(?i)crash"
repo = "by-keyword"
recipe = "pair"
[[routes]]
team = "core"
repo = "by-team"
recipe = "pair"
[[routes]]
project = "web"
repo = "by-project"
recipe = "pair"
[[routes]]
label = "Urgent"
repo = "by-label"
recipe = "pair"
[[routes]]
label = "urgent"
repo = "second-label"
recipe = "pair"
"""

FIRST, _, REST = SMALL.partition("[[routes]]")
ROUTED = parse(FIRST + ROUTES + REST[REST.index("[recipes.pair]") :])

EVERY_HINT = {"labels": ("urgent",), "project": "web", "team": "core", "body": "a CRASH"}


def route(config=ROUTED, **fields):
    found = choose_route(issue(**({"labels": ()} | fields)), config)
    assert isinstance(found, Routed)
    return found


@pytest.mark.parametrize(
    ("lacking", "repo"),
    [
        ((), "by-label"),
        (("labels",), "by-project"),
        (("labels", "project"), "by-team"),
        (("labels", "project", "team"), "by-keyword"),
        (("labels", "project", "team", "body"), "by-default"),
    ],
)
def test_label_wins_over_project_over_team_over_keyword_over_default(lacking, repo):
    hints = {name: value for name, value in EVERY_HINT.items() if name not in lacking}
    assert route(**hints).repo == repo


def test_routes_of_one_kind_are_tried_in_file_order():
    assert route(labels=("URGENT",)).repo == "by-label"


def test_project_and_team_are_matched_exactly():
    assert route(project="Web", team="cor").repo == "by-default"


def test_what_the_issue_itself_names_comes_first():
    assert route(repo="by-team", labels=("urgent",)).repo == "by-team"
    named = route(repo="by-team", recipe="pair")
    assert (named.repo, named.recipe, named.why) == ("by-team", "pair", "named by the issue")


@pytest.mark.parametrize("named", [{"repo": "nope"}, {"recipe": "nope"}])
def test_an_issue_that_names_what_nobody_knows_is_not_guessed_about(named):
    (what,) = named
    found = choose_route(issue(**named), ROUTED)
    assert found == Unrouted(reason=f"no route: it names the {what} 'nope', which is unknown")


def test_an_issue_that_no_route_matches_is_unrouted_with_a_reason():
    found = choose_route(issue(labels=("other",)), parse(SMALL))
    assert isinstance(found, Unrouted)
    assert found.reason.startswith("no route: ")
