"""One machine for each Debian, booted once for all checks of it that are wanted."""

import pytest

from tests.vm.machines import Report, examine

Reports = dict[tuple[str, str], Report]


@pytest.fixture(scope="session")
def reports(request: pytest.FixtureRequest) -> Reports:
    wanted: dict[str, list[str]] = {}
    for item in request.session.items:
        in_a_vm = item.get_closest_marker("vm") is not None
        if in_a_vm and isinstance(item, pytest.Function) and "reports" in item.fixturenames:
            suite, check = (str(item.callspec.params[name]) for name in ("suite", "check"))
            wanted.setdefault(suite, []).append(check)
    return examine(wanted)
