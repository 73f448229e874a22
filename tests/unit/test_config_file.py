"""The configuration file on disk: found, read, checked against the file system, printed."""

import os
import tomllib
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from factoryd.adapters.config_file import MAX_FILE_BYTES, find_config, load_config, render_toml
from factoryd.core.config_parse import parse_config
from factoryd.core.errors import ConfigInvalid
from factoryd.core.template import expand

SOUND = """
[[sources]]
kind = "folder"
path = "issues"

[repos.demo]
path = "demo"

[[routes]]
default = true
repo = "demo"
recipe = "solo"

[recipes.solo]
stages = [["worker"]]

[agents.worker]
kind = "command"
command = ["./work.sh", "{issue.key}"]
"""


@pytest.fixture
def place():
    """A directory in which SOUND is sound, and which everyone may enter (not so tmp_path)."""
    with TemporaryDirectory() as name:
        place = Path(name).resolve()
        place.chmod(0o755)
        (place / "issues").mkdir()
        (place / "demo/.git").mkdir(parents=True)
        yield place


def write(place, text):
    path = place / "factoryd.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def find_mistakes(path):
    with pytest.raises(ConfigInvalid) as caught:
        load_config(path)
    assert all(line.startswith(f"{path}: ") for line in caught.value.mistakes)
    return [line.removeprefix(f"{path}: ") for line in caught.value.mistakes]


# ---------------------------------------------------------------- finding


def test_a_named_file_is_taken_whether_it_exists_or_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("x.toml", {}, is_root=False) == tmp_path / "x.toml"


def test_systemds_directories_come_before_the_users(tmp_path):
    first, second, home = tmp_path / "first", tmp_path / "second", tmp_path / "home"
    environ = {
        "CONFIGURATION_DIRECTORY": f"{first}:{second}",
        "XDG_CONFIG_HOME": str(home),
        "HOME": "/nowhere",
    }
    files = [first / "factoryd.toml", second / "factoryd.toml", home / "factoryd/factoryd.toml"]
    for file in reversed(files):
        file.parent.mkdir(parents=True)
        file.touch()
        assert find_config(None, environ, is_root=False) == file


def test_without_xdg_config_home_it_is_below_the_home_directory(tmp_path):
    file = tmp_path / ".config/factoryd/factoryd.toml"
    file.parent.mkdir(parents=True)
    file.touch()
    environ = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "relative/is/ignored"}
    assert find_config(None, environ, is_root=False) == file


def test_when_there_is_none_every_place_is_named(tmp_path):
    environ = {"CONFIGURATION_DIRECTORY": f"{tmp_path}/a", "HOME": f"{tmp_path}/b"}
    with pytest.raises(ConfigInvalid) as caught:
        find_config(None, environ, is_root=False)
    assert f"{tmp_path}/a/factoryd.toml" in str(caught.value)
    assert f"{tmp_path}/b/.config/factoryd/factoryd.toml" in str(caught.value)
    assert "--config" in str(caught.value)
    with pytest.raises(ConfigInvalid, match="HOME is not set"):
        find_config(None, {}, is_root=False)


def test_root_does_not_read_the_configuration_of_a_home_directory(tmp_path):
    file = tmp_path / ".config/factoryd/factoryd.toml"
    file.parent.mkdir(parents=True)
    file.touch()
    try:
        found = str(find_config(None, {"HOME": str(tmp_path)}, is_root=True))
    except ConfigInvalid as error:
        found = str(error)
    assert "/etc/factoryd/factoryd.toml" in found
    assert str(tmp_path) not in found


# ---------------------------------------------------------------- reading


def test_paths_are_relative_to_the_file_and_become_absolute(place, monkeypatch):
    write(place, SOUND)
    monkeypatch.chdir(place.parent)
    loaded = load_config((place / "factoryd.toml").relative_to(place.parent))
    assert loaded.path == place / "factoryd.toml"
    assert loaded.base_dir == place
    assert loaded.config.sources[0].path == str(place / "issues")
    assert loaded.config.sources[0].name == "issues"
    assert loaded.config.repos["demo"].path == str(place / "demo")


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    assert find_mistakes(tmp_path / "x.toml") == [
        "no such file: write it or name another with --config FILE"
    ]


def test_a_file_that_cannot_be_read_gets_one_sentence(tmp_path):
    (found,) = find_mistakes(tmp_path)
    assert found.startswith("cannot be read (Is a directory)")


@contextmanager
def barred_from(directory):
    """Be someone who may not look into a directory; root becomes nobody for it."""
    directory.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        directory.chmod(0o755)


def test_a_file_that_may_not_be_read_is_not_passed_over_for_another(place):
    path = write(place, SOUND)
    environ = {"CONFIGURATION_DIRECTORY": str(place)}
    with barred_from(place):
        assert find_config(None, environ, is_root=False) == path
        (found,) = find_mistakes(path)
    assert found.startswith("cannot be read (Permission denied)")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a = 1\nb = \n", "line 2, column 5: Invalid value"),
        ("a = [", "end of document: "),
        ("a = 1\na = 1\n", "line 2, column 6: Cannot overwrite a value"),
        (b"# ok\nb = '\xff'", "line 2: is not UTF-8"),
        ("a = " + "[" * 100_000, "is nested too deeply"),
        ("a = " + "9" * 10_000, "TOML: Exceeds the limit"),
        ("#" * (MAX_FILE_BYTES + 1), "is larger than 1048576 bytes"),
    ],
    ids=["syntax", "end", "twice", "encoding", "deep", "digits", "large"],
)
def test_a_file_that_is_no_toml_is_refused_with_the_place(place, text, found):
    (mistake,) = find_mistakes(write(place, text))
    assert mistake.startswith(found)


FRAGMENTS = st.sampled_from(
    [
        *"[]{}=\"'.,#\n0",
        "[[sources]]\n",
        "[agents.a]\n",
        'path = "',
        "0x",
        "1e9",
        "12:00",
        "\\u0000",
    ]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.lists(FRAGMENTS | st.text()).map(lambda parts: "".join(parts).encode()))
def test_a_file_of_anything_is_refused_in_order(tmp_path, body):
    assert find_mistakes(write(tmp_path, body))


def test_an_endless_file_is_not_read_to_its_end():
    with pytest.raises(ConfigInvalid, match="larger than"):
        load_config(Path("/dev/zero"))


def test_a_byte_order_mark_does_no_harm(place):
    load_config(write(place, b"\xef\xbb\xbf" + SOUND.encode()))


# ---------------------------------------------------------------- paths


def test_missing_paths_and_other_mistakes_are_told_together(tmp_path):
    path = write(tmp_path, f"{SOUND}\n[factory]\nslots = 0\n")
    (tmp_path / "demo").touch()
    assert find_mistakes(path) == [
        "factory.slots: must be a whole number from 1 to 1000, not 0",
        f"sources[0].path: no such directory: {tmp_path}/issues: create it or correct the path",
        f"repos.demo.path: is not a directory: {tmp_path}/demo: correct the path",
    ]


@pytest.mark.parametrize("written", ["loop", "x" * 5000, "demo/.git/../../nothing", "file/x"])
def test_a_path_that_cannot_be_followed_is_a_mistake(place, written):
    (place / "loop").symlink_to("loop")
    (place / "file").touch()
    path = write(place, SOUND.replace('"issues"', f'"{written}"'))
    (found,) = find_mistakes(path)
    assert found.startswith("sources[0].path: ")


@pytest.mark.parametrize("second", ["./issues/", "link", "demo/../issues"])
def test_two_sources_over_one_folder_are_found_behind_other_spellings(place, second):
    (place / "link").symlink_to(place / "issues")
    path = write(place, f'{SOUND}\n[[sources]]\nkind = "folder"\npath = "{second}"\n')
    (found,) = find_mistakes(path)
    assert found.startswith("sources[1].path: is the folder of sources[0] too")


def test_a_worktree_needs_a_git_repository(place):
    (place / "demo/.git").rmdir()
    path = write(place, SOUND)
    (found,) = find_mistakes(path)
    assert found.startswith(f"repos.demo.path: is not a git repository: {place}/demo: ")
    write(place, SOUND.replace('path = "demo"', 'path = "demo"\nworkspace = "none"'))
    load_config(path)


def test_a_repository_that_may_not_be_entered_is_not_called_none(place):
    path = write(place, SOUND)
    with barred_from(place / "demo"):
        (found,) = find_mistakes(path)
    assert found.startswith("repos.demo.path: cannot be used (Permission denied)")


def test_a_linked_worktree_and_a_bare_repository_are_repositories(place):
    (place / "demo/.git").rmdir()
    (place / "demo/.git").write_text("gitdir: elsewhere\n")
    path = write(place, SOUND)
    load_config(path)
    (place / "demo/.git").unlink()
    (place / "demo/HEAD").touch()
    (place / "demo/objects").mkdir()
    (place / "demo/refs").mkdir()
    load_config(path)


# ---------------------------------------------------------------- programs


def test_a_program_beside_the_file_becomes_absolute_whatever_its_directory_is_called(place):
    odd = place / "odd {run} }}"
    odd.mkdir()
    for name in ("issues", "demo"):
        (odd / name).symlink_to(place / name)
    (odd / "work.sh").touch()
    command = load_config(write(odd, SOUND)).config.agents["worker"].command
    assert expand(command, {"issue.key": "K-1"}) == (str(odd / "work.sh"), "K-1")


@pytest.mark.parametrize(
    "program",
    [
        "./work.sh",
        "tools/work.sh",
        "/no/such/program",
        "work",
        "{workspace}/work.sh",
        f"./{999 * 'x'}",
    ],
)
def test_a_program_that_is_not_there_is_no_mistake_of_the_configuration(place, program):
    path = write(place, SOUND.replace("./work.sh", program))
    assert load_config(path).config.agents["worker"].command[0] == program


# ---------------------------------------------------------------- printing

WORDS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
SOME_TEXT = WORDS.filter(bool)
DURATIONS = st.sampled_from(["0s", "1ms", "999ms", "1s", "90s", "59m", "1h"])
LIVELY = st.sampled_from(["100ms", "333ms", "1001ms", "7s", "90s", "59m"])
REQUIRED: dict[str, st.SearchStrategy[Any]] = {
    "sources": st.lists(
        st.fixed_dictionaries({"kind": st.just("folder"), "path": SOME_TEXT}),
        min_size=1,
        max_size=3,
        unique_by=lambda source: source["path"],
    ),
    "repos": st.just({"demo.js": {"path": "x"}, "plain": {"workspace": "directory"}}),
    "recipes": st.fixed_dictionaries(
        {"r-1": st.just({"stages": [["a"], ["b", "a"]], "on_failure": "wait"})}
    ),
    "agents": st.fixed_dictionaries(
        {
            "a": st.fixed_dictionaries(
                {
                    "kind": st.just("command"),
                    "command": st.lists(
                        WORDS.filter(lambda text: not {"{", "}"} & set(text)), max_size=3
                    ).map(lambda rest: ["run", "{issue.key}", "{{}}", *rest]),
                    "env": st.dictionaries(st.from_regex(r"\A[A-E_][a-z0-9]{0,5}\Z"), WORDS),
                    "stall_after": DURATIONS,
                    "memory_max": st.sampled_from(["", "1M", "1536M", "2G", "1048577"]),
                }
            ),
            "b": st.just({"kind": "command", "name": "x", "command": ["b"]}),
        }
    ),
}
CONFIGS = st.fixed_dictionaries(
    REQUIRED,
    optional={
        "factory": st.fixed_dictionaries({"slots": st.integers(1, 1000), "poll_interval": LIVELY}),
        "dispatch": st.fixed_dictionaries(
            {"backoff_factor": st.floats(1, 100), "max_backoff": DURATIONS}
        ),
        "heartbeat": st.fixed_dictionaries({"interval": LIVELY, "stale_after": LIVELY}),
        "stop": st.fixed_dictionaries({"order": st.just("root-first"), "grace": DURATIONS}),
        "safety": st.fixed_dictionaries({"require_label": WORDS, "require_team": WORDS}),
        "protect": st.fixed_dictionaries({"pids": st.lists(st.integers(1, 1 << 22))}),
        "output": st.fixed_dictionaries({"journal": st.booleans()}),
        "routes": st.lists(
            st.fixed_dictionaries(
                {"repo": st.just("plain"), "recipe": st.just("r-1"), "label": SOME_TEXT}
            ),
            unique_by=lambda route: route["label"],
        ),
    },
)


@settings(deadline=None)
@given(CONFIGS)
def test_the_printed_configuration_reads_as_the_same_one(document):
    config = parse_config(document, "f")
    printed = render_toml(config)
    assert parse_config(tomllib.loads(printed), "f") == config


def test_the_printed_configuration_shows_every_section_as_people_write_it(place):
    printed = render_toml(load_config(write(place, SOUND)).config)
    assert '[[sources]]\nkind = "folder"\n' in printed
    assert "[[routes]]\n" in printed
    assert 'poll_interval = "30s"\n' in printed
    assert 'memory_max = ""\n' in printed
    assert "[repos.demo]\n" in printed
