"""What has changed in a configuration, by the keys of the file."""

import pytest
from msgspec.structs import replace

from factoryd.core.config import Config
from factoryd.core.config_change import RESTART_KEYS, list_changes, list_restarts
from factoryd.core.config_schema import describe
from tests.unit.configs import SMALL, parse

OLD = parse(SMALL)


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ("", ()),
        (
            "[factory]\nslots = 7\npoll_interval = '1s'\n",
            ("factory.slots", "factory.poll_interval"),
        ),
        ("[stop]\ngrace = '1s'\n[protect]\npids = [1]\n", ("stop.grace", "protect.pids")),
        ("[repos.other]\npath = 'o'\n", ("repos.other",)),
        ("[agents.implementer.env]\nA = 'b'\n", ("agents.implementer",)),
        ("[[routes]]\nteam = 'x'\nrepo = 'demo'\nrecipe = 'pair'\n", ("routes",)),
        ("[[sources]]\nkind = 'folder'\npath = 'more'\n", ("sources",)),
    ],
)
def test_what_differs_is_named_by_its_key(changed, keys):
    new = parse(SMALL + changed)
    assert list_changes(OLD, new) == keys
    assert list_changes(new, OLD) == keys


def test_a_table_with_a_strange_name_is_named_as_in_the_file():
    new = replace(OLD, repos={**OLD.repos, "a.b": OLD.repos["demo"]})
    assert list_changes(OLD, new) == ('repos."a.b"',)


def test_only_what_a_daemon_decides_once_waits_for_a_restart():
    factory = replace(OLD.factory, containment="subreaper", slots=9)
    new = replace(OLD, factory=factory)
    assert list_restarts(OLD, new) == ("factory.containment",)
    assert list_restarts(OLD, replace(new, factory=replace(factory, containment="auto"))) == ()


def test_every_key_that_waits_for_a_restart_exists():
    known = {
        f"{section.title.strip('[]')}.{key.name}" for section in describe() for key in section.keys
    }
    assert known >= RESTART_KEYS
    assert Config.__struct_fields__[0] == "factory"
