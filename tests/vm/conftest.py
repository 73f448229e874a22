"""One machine for each Debian, booted once for all checks of it that are wanted."""

import pytest

from tests.vm.machines import Report, examine

Reports = dict[tuple[str, str], Report]


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest) -> Reports:
    wanted: dict[str, list[str]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "reports" in item.fixturenames:
            parameters = item.callspec.params
            wanted.setdefault(parameters["suite"], []).append(parameters["check"])
    return examine(wanted)
