"""One machine for each Debian, booted once; all tests of both run before the first is reported.

So the two go through their tests side by side, and no container is left between two tests.
"""

import re
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.systemd.factory import Factory, make_wheels
from tests.systemd.machines import SUITES, a_machine
from tests.vm import payload

LINES = 80
NOISE = re.compile(r"Unit process \d+|left-over process|usually indicates|Unknown key|Reloading\.")


class Outcome:
    """What became of a test on a machine."""

    def __init__(self, took_s: float = 0, error: Exception | None = None) -> None:
        self.took_s = took_s
        self.error = error


Outcomes = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    wanted: dict[str, list[pytest.Function]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "factory" in item.fixturenames:
            wanted.setdefault(str(item.callspec.params["factory"]), []).append(item)
    with (
        tempfile.TemporaryDirectory(prefix="factoryd-systemd-") as name,
        ThreadPoolExecutor() as pool,
    ):
        wheel = payload.make_wheels(Path(name, "wheels"))
        running = [
            pool.submit(_go_through, suite, items, wheel, Path(name, suite))
            for suite, items in wanted.items()
        ]
        return {key: outcome for one in running for key, outcome in one.result().items()}


def _go_through(
    suite: str, items: Sequence[pytest.Function], wheel: Path, directory: Path
) -> Outcomes:
    directory.mkdir()
    make_wheels(wheel, suite, directory / "wheels")
    with a_machine(suite, directory) as machine:
        factory = Factory(machine)
        factory.install(directory / "wheels")
        return {(suite, item.nodeid): _try(item, factory) for item in items}


def _try(item: pytest.Function, factory: Factory) -> Outcome:
    began = time.monotonic()
    try:
        factory.prepare()
        item.obj(**{**item.callspec.params, "factory": factory})
    except Exception as error:  # noqa: BLE001  it is the test's to raise, later
        error.add_note(_tell(factory.journal("--since=-2min", "--output=short-precise")))
        return Outcome(time.monotonic() - began, error)
    return Outcome(time.monotonic() - began)


def _tell(journal: str) -> str:
    """Return the newest of a journal, without what systemd says again and again."""
    said = [line for line in journal.splitlines() if not NOISE.search(line)]
    return "\n".join(said[-LINES:])


@pytest.fixture(params=SUITES)
def factory(request: pytest.FixtureRequest, outcomes: Outcomes) -> Outcome:
    return outcomes[request.param, request.node.nodeid]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Report a test that has run already instead of running it."""
    outcome = pyfuncitem.funcargs.get("factory")
    if not isinstance(outcome, Outcome):
        return None
    pyfuncitem.user_properties.append(("took_s", outcome.took_s))
    if outcome.error is not None:
        raise outcome.error
    return True
