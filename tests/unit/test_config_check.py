"""Mistakes of a whole configuration: all at once, and what its parts say of one another."""

import tomllib

import pytest

from factoryd.core.config_parse import parse_config
from tests.unit.configs import SMALL, change, find_document_mistakes, find_mistakes


def test_all_mistakes_are_told_at_once_and_the_sound_rest_is_not():
    found = find_mistakes("""
        [factory]
        slot = 3
        poll_interval = 30
        [stop]
        signal = "TERM"
        [[sources]]
        path = 3
        [[sources]]
        kind = "folder"
        path = "a"
        [[routes]]
        label = "x"
        team = "y"
        repo = "demo"
        recipe = "pair"
        [repos.demo]
        path = "x"
        [recipes.pair]
        stages = [["a"], ["b"]]
        [agents.a]
        kind = "command"
        command = ["x"]
        stall_after = "soon"
        [spare]
        part = 1
    """)
    assert set(found) == {
        "spare",
        "factory.slot",
        "factory.poll_interval",
        "stop.signal",
        "sources[0].kind",
        "sources[0].path",
        "routes[0]",
        "recipes.pair.stages[1][0]",
        "agents.a.stall_after",
    }


def test_an_unknown_key_is_refused_with_the_name_it_is_close_to():
    assert (
        "did you mean stall_after?"
        in find_mistakes(f'{SMALL}\nstal_after = "5m"')["agents.reviewer.stal_after"]
    )
    assert "did you mean dispatch?" in find_mistakes(f"{SMALL}\n[dispach]")["dispach"]
    assert (
        "known here: max_resumes, delay" in find_mistakes(f"{SMALL}\n[resume]\nxyz=1")["resume.xyz"]
    )


def test_a_number_too_long_to_print_is_refused_all_the_same():
    found = find_document_mistakes(change("factory.slots", 10**5000))
    assert "not a huge number" in found["factory.slots"]


def test_a_key_of_odd_characters_stays_on_one_bounded_line():
    found = find_document_mistakes({**tomllib.loads(SMALL), 'a\n"b': 1, "c " * 999: 2})
    assert '"a\ufffd\\"b"' in found
    assert max(map(len, found)) < 200


def test_an_empty_document_says_that_there_is_no_source():
    assert find_mistakes("") == {"sources": "there is none: add a [[sources]] section"}


def test_a_section_that_cannot_be_read_is_told_once_and_not_for_all_who_refer_to_it():
    assert list(find_document_mistakes(change("repos", 5))) == ["repos"]


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ({}, "none of them"),
        ({"label": "a", "default": True}, "label and default"),
        ({"team": "a", "keyword": "b"}, "team and keyword"),
        ({"default": False}, "none of them"),
    ],
)
def test_a_route_takes_exactly_one_criterion(criteria, found):
    route = {"repo": "demo", "recipe": "pair", **criteria}
    assert found in find_document_mistakes(change("routes", [route]))["routes[0]"]


def test_a_route_that_is_never_reached_is_a_mistake():
    route = {"repo": "demo", "recipe": "pair", "default": True}
    found = find_document_mistakes(change("routes", [route, {**route, "label": "a"}, route]))
    assert "routes[0] matches the same issues" in found["routes[2].default"]


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 500 + ")" * 500, "x" * 1001])
def test_a_keyword_that_is_no_bounded_regular_expression_is_a_mistake(pattern):
    route = {"repo": "demo", "recipe": "pair", "keyword": pattern}
    assert list(find_document_mistakes(change("routes", [route]))) == ["routes[0].keyword"]


def test_a_keyword_that_python_merely_warns_about_is_taken():
    route = {"repo": "demo", "recipe": "pair", "keyword": "[[a]"}
    assert parse_config(change("routes", [route]), "f").routes[0].keyword == "[[a]"


def test_two_agents_of_one_recipe_with_one_name_are_a_mistake():
    found = find_document_mistakes(change("agents.reviewer.name", "impl"))
    assert "both named impl" in found["recipes.pair.stages[1][0]"]


def test_an_agent_may_come_again_in_a_later_stage_but_not_in_its_own():
    again = change("recipes.pair.stages", [["implementer"], ["reviewer"], ["implementer"]])
    assert len(parse_config(again, "f").recipes["pair"].stages) == 3
    twice = change("recipes.pair.stages", [["implementer", "implementer"]])
    assert list(find_document_mistakes(twice)) == ["recipes.pair.stages[0][1]"]


def test_two_sources_over_one_folder_or_of_one_name_are_a_mistake():
    source = {"kind": "folder", "path": "issues"}
    found = find_document_mistakes(change("sources", [source, source]))
    assert "the folder of sources[0] too" in found["sources[1].path"]
    other = {"kind": "folder", "path": "other", "name": "issues"}
    found = find_document_mistakes(change("sources", [source, other]))
    assert "called issues already" in found["sources[1].name"]


def test_only_fresh_directories_need_no_repository():
    document = change("repos.demo", {"workspace": "directory"})
    assert parse_config(document, "f").repos["demo"].path == ""
    document = change("repos.demo", {"workspace": "none"})
    assert list(find_document_mistakes(document)) == ["repos.demo.path"]


@pytest.mark.parametrize(
    ("interval", "stale_after", "effective"),
    [("15s", "60s", 15.0), ("16s", "60s", 15.0), ("1s", "60s", 1.0), ("1h", "250ms", 0.062)],
)
def test_the_heartbeat_beats_at_least_four_times_before_it_is_stale(
    interval, stale_after, effective
):
    document = change("heartbeat", {"interval": interval, "stale_after": stale_after})
    assert parse_config(document, "f").heartbeat.interval == effective
