"""The page for operators, typed into a machine as it stands there."""

import subprocess
import time

from tests.pages import BOOTED_PAGE, Block, blocks, shows
from tests.systemd.factory import Factory
from tests.systemd.machines import BOOTED, WITHIN_S

pytestmark = BOOTED


def test_every_command_of_the_page_does_what_the_page_says(factory: Factory) -> None:
    try:
        for block in blocks(BOOTED_PAGE, "console"):
            try_block(factory, block)
    finally:  # the page ends with nothing installed
        factory.install_units()


def try_block(factory: Factory, block: Block) -> None:
    """Type a block; one that only looks is typed again until it shows what it should."""
    until = time.monotonic() + WITHIN_S
    done = type_in(factory, block.user, block.commands)
    while done.returncode != 0 or not shows(done.stdout, block.promised):
        ended = f"{done.stdout}{done.stderr}({done.returncode})"
        said = f"{block.commands}\nshows\n{ended}\nnot\n{block.promised}"
        assert block.only_looks, said
        assert time.monotonic() < until, said
        time.sleep(0.2)
        done = type_in(factory, block.user, block.commands)


def type_in(factory: Factory, user: str, commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands as root, or as a user would after a login."""
    machine, env = factory.machine, {}
    if user:
        number = machine.run("id", "--user", user).strip()
        env = {"HOME": f"/home/{user}", "XDG_RUNTIME_DIR": f"/run/user/{number}"}
        commands = f'cd "$HOME"\n{commands}'
    return machine.call("sh", "-eu", "-c", commands, user=user or None, env=env)
