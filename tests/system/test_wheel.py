"""The product as people install it, from a wheel, with no source tree around."""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from factoryd import __version__
from factoryd.core.installation import for_machine, for_user
from tests.system.daemons import a_place
from tests.test_manual import MANUAL

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(180)]


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Run a program to its end where nothing points at the source tree; return what it printed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def pip(*words: str | Path) -> Sequence[str | Path]:
    """Return the command that has the running environment's pip do something."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    given = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    words = ("wheel", "--no-deps", *isolation, "--wheel-dir", directory, ROOT)
    run(*pip(*words), cwd=directory, **given)
    (built,) = directory.glob("*.whl")
    return built


def install_into_venv(wheel, home):
    environment = home / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=home)
    options = ("--python", environment / "bin/python")
    run(*pip(*options, "install", "--no-deps", "--no-index", wheel), cwd=home)
    return environment


def install_with_pipx(wheel, home):
    run(
        *(sys.executable, "-m", "pipx", "install", "--pip-args=--no-deps --no-index", wheel),
        cwd=home,
        PIPX_HOME=str(home / "pipx"),
        PIPX_BIN_DIR=str(home / "bin"),
        PIPX_MAN_DIR=str(home / "man"),
        # A pip that is there already, and stays as it is.
        PIPX_SHARED_LIBS=sys.prefix,
        PIPX_DISABLE_SHARED_LIBS_AUTO_UPGRADE="1",
    )
    assert run(home / "bin/factoryd", "--help", cwd=home).startswith("usage: factoryd")
    return home / "pipx/venvs/factoryd"


@pytest.fixture(params=[install_into_venv, install_with_pipx], ids=["venv", "pipx"])
def installed(request, wheel, tmp_path):
    """The directory of the programs; what they depend on is lent by the running environment."""
    environment = request.param(wheel, tmp_path)
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return environment / "bin"


def test_a_wheel_has_all_that_is_shipped_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {f"factoryd/data/{one.name}" for one in (*for_machine().files, *for_user("/").files)}
    modules = {
        str(path.relative_to(ROOT))
        for package in ("factoryd", "factoryctl")
        for path in (ROOT / package).rglob("*.py")
    }
    ours = {one for one in names if ".dist-info/" not in one}
    assert ours == {*modules, *shipped, "factoryd/libexec/agent-shim"}


def test_what_a_wheel_says_of_itself_is_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("/METADATA"))
        said, _, text = archive.read(name).decode().partition("\n\n")
    keys = {line.partition(":")[0] for line in said.splitlines()}
    wanted = {"Name", "Version", "Summary", "Keywords", "Classifier", "Requires-Python"}
    assert wanted <= keys
    assert f"\nVersion: {__version__}\n" in said
    assert text.startswith("# factoryd\n")


def test_an_installed_factoryd_needs_no_source_tree(installed, tmp_path):
    factoryd, factoryctl = installed / "factoryd", installed / "factoryctl"
    code = "import factoryd, factoryctl; print(factoryd.__file__, factoryctl.__file__)"
    for module in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(module).is_relative_to(tmp_path)
    assert run(factoryd, "--version", cwd=tmp_path) == f"factoryd {__version__}\n"
    assert "reap-orphans" in run(factoryctl, "--help", cwd=tmp_path)

    image = tmp_path / "image"
    image.mkdir()
    told = run(factoryd, "install-units", "--root", image, cwd=tmp_path)
    assert "journalctl" in told
    for one in for_machine().files:
        assert Path(f"{image}/usr/local", one.to.lstrip("/")).is_file() or (
            one.to.startswith("/") and Path(f"{image}{one.to}").is_file()
        )
    unit = (image / "usr/local/lib/systemd/system/factoryd.service").read_text()
    assert f"\nExecStart={factoryd} run\n" in unit

    with a_place() as place:
        shown = place.root / "shown"
        place.put("AR-255", f"tr '\\0' ' ' < /proc/$PPID/cmdline > {shown}")
        directories = ("--state-dir", place.state, "--runtime-dir", place.runtime)
        run(factoryd, "run", "--once", "--config", place.config, *directories, cwd=tmp_path)
        assert (place.root / "issues/done/AR-255.md").exists(), place.log
        shim = next(word for word in shlex.split(shown.read_text()) if word.endswith("agent-shim"))
        assert Path(shim).is_relative_to(tmp_path)
        kept = [path for path in MANUAL["FILES"] if path.startswith("/var/lib/factoryd/")]
        assert len(kept) == 3
        for path in kept:
            assert (place.state / Path(path).name).exists() or path.endswith("/workspaces")
        history = run(factoryctl, "--json", "--state-dir", place.state, "history", cwd=tmp_path)
        assert '"AR-255"' in history
