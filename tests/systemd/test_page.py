"""What the page on systemd says, typed as it stands there into booted machines."""

from tests.pages import BOOTED_PAGE, Block, blocks, shows
from tests.systemd.factory import SERVICE, Factory
from tests.systemd.machines import BOOTED, wait_until

pytestmark = BOOTED

OFFLINE = """
[global]
no-index = yes
find-links = /srv/wheels
"""
"""There is no network; what pip would fetch is in the machine."""


def test_the_page_on_systemd_does_what_it_says(factory: Factory) -> None:
    factory.uninstall_units()
    factory.machine.put("/etc/pip.conf", OFFLINE)
    try:
        for block in blocks(BOOTED_PAGE, "console"):
            type_in(factory, block)
    finally:
        factory.install_units()


def type_in(factory: Factory, block: Block) -> None:
    """Type the commands of a block and see what they print; only looking is repeated."""
    printed = ""

    def shown() -> bool:
        nonlocal printed
        user = block.user or "root"
        done = factory.machine.call("runuser", "--login", user, "--command", f"set -eu\n{block.commands}")
        printed = f"{done.stdout}{done.stderr}"
        assert done.returncode == 0, f"{block.commands}: {done.returncode}: {printed}"
        return shows(printed, block.promised)

    if not block.only_looks:
        assert shown(), f"{block.commands}\nshows\n{printed}\nnot\n{block.promised}"
    else:
        try:
            wait_until(shown, "it does not show that")
        except AssertionError as error:
            error.add_note(f"{block.commands}\nshows\n{printed}\nnot\n{block.promised}")
            raise
