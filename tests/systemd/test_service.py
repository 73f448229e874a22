"""What an operator does with the service on an ordinary day."""

from tests.systemd.factory import ESCAPES, SERVICE, Factory, play
from tests.systemd.machines import BOOTED

pytestmark = BOOTED


def test_a_started_service_runs_its_issues_and_a_stop_leaves_no_process(factory: Factory) -> None:
    factory.systemctl("start", SERVICE)
    factory.put("AR-1", play(ESCAPES))
    factory.put("AR-2", play("ignore:TERM", ESCAPES))
    factory.wait_up("AR-1", "AR-2")
    assert len(factory.tree()) > 10
    factory.systemctl("stop", SERVICE)
    assert factory.tree() == {}
    assert factory.show("Result") == "success"
