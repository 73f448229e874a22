"""The verb reload, and what status shows of a configuration that was refused."""

import json

import msgspec
import pytest

from factoryctl.layout import lay_out, plain_picture, plain_reload
from factoryd.wire.answers import ReloadReply
from factoryd.wire.framing import INTERFACE
from factoryd.wire.messages import Reason, encode_error, encode_reply
from tests.fakes.daemon import ScriptedDaemon
from tests.unit.ctl import Ctl, status
from tests.unit.test_factoryctl_layout import NOW

MISTAKES = ("/etc/f.toml: factory.slots: must be 1 or more", "/etc/f.toml: x\x1b: is unknown")


@pytest.fixture
async def daemon(tmp_path, nursery):
    scripted = ScriptedDaemon(tmp_path / "control.sock")
    await nursery.start(scripted.serve)
    return scripted


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path / "control.sock")


def reply(changed=(), restart=(), mistakes=()):
    return ReloadReply(changed=changed, restart=restart, mistakes=mistakes)


async def test_reload_tells_what_has_changed(daemon, ctl):
    daemon.when("Reload", encode_reply(reply(("factory.slots", "sources"))))
    done = await ctl("reload")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"factory.slots\nsources\n", b"")
    assert daemon.parameters() == {}


@pytest.mark.parametrize(
    ("changed", "restart", "said"),
    [
        ((), (), "nothing has changed"),
        (("a.b", "c"), ("c",), "a.b\nc  from the next start of factoryd"),
        ((), ("c",), "c  from the next start of factoryd"),
        (('repos."\x1b"',), (), 'repos."\\x1b"'),
    ],
)
def test_what_waits_for_a_restart_says_so(changed, restart, said):
    assert plain_reload(reply(changed, restart)) == said


async def test_mistakes_are_told_and_a_failure(daemon, ctl):
    daemon.when("Reload", encode_reply(reply(mistakes=MISTAKES)))
    done = await ctl("reload")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [
        "factoryctl: /etc/f.toml: factory.slots: must be 1 or more",
        "factoryctl: /etc/f.toml: x\\x1b: is unknown",
        "factoryctl: the configuration before it stays in force: mend the file and reload again",
    ]


async def test_a_program_gets_one_document_whatever_came_of_it(daemon, ctl):
    for mistakes, status_ in ((MISTAKES, 1), ((), 0)):
        daemon.script("Reload", encode_reply(reply(("a",) if not mistakes else (), (), mistakes)))
        done = await ctl("--json", "reload")
        assert done.returncode == status_
        assert json.loads(done.stdout) == {
            "changed": [] if mistakes else ["a"],
            "restart": [],
            "mistakes": list(mistakes),
        }


async def test_a_daemon_that_stops_refuses(daemon, ctl):
    daemon.when(
        "Reload", encode_error(f"{INTERFACE}.Refused", Reason(reason="factoryd is stopping"))
    )
    done = await ctl("reload")
    assert (done.returncode, done.stderr) == (1, b"factoryctl: factoryd is stopping\n")


def test_status_shows_why_the_configuration_was_refused():
    picture = status()
    refused = msgspec.structs.replace(picture.daemon, config_mistakes=MISTAKES)
    drawn = plain_picture(lay_out(msgspec.structs.replace(picture, daemon=refused), NOW))
    assert "configuration refused: /etc/f.toml: factory.slots: must be 1 or more\n" in drawn
    assert "configuration refused: /etc/f.toml: x\\x1b: is unknown\n" in drawn
