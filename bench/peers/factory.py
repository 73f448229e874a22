"""factoryd itself, behind the Protocol of its peers."""

import json
import sys
from collections.abc import Sequence

import factoryd
from bench.agents import Agent
from bench.factory import CONFIG, SCRIPT, Connection, wait_until
from bench.ground import Ground


class Factoryd:
    """A daemon, to which each agent comes as an issue of its own."""

    name = "factoryd"
    notes = "one issue for each agent, put into its folder; grace 2 s; resumes at once"
    limits = ""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        root = ground.root
        (root / "issues" / "ready").mkdir(parents=True)
        (root / "staged").mkdir()
        (root / "repo").mkdir()
        config = CONFIG.format(stages=json.dumps([["agent"]]), agent=json.dumps(SCRIPT), grace="2s")
        (root / "factoryd.toml").write_text(f"{config}{self.limits}")
        self.socket = root / "rt" / "control.sock"

    def version(self) -> str:
        """Return factoryd's."""
        return f"factoryd {factoryd.__version__}"

    def up(self) -> None:
        """Start the daemon."""
        root = self.ground.root
        places = ["--state-dir", str(root / "st"), "--runtime-dir", str(root / "rt")]
        config = ["--config", str(root / "factoryd.toml")]
        self.process = self.ground.start(
            [sys.executable, "-m", "factoryd", "run", *config, *places]
        )
        wait_until(self._connects, pause_s=0.002)

    def prepare(self, agents: Sequence[Agent]) -> None:
        """Write the issues beside their folder."""
        for agent in agents:
            head = f"key: B-{agent.number}\ntitle: Agent {agent.number}\nlabels: [factory]"
            text = f"---\n{head}\n---\n{self.ground.script(agent)}\n"
            (self.ground.root / "staged" / f"{agent.name}.md").write_text(text)

    def launch(self) -> None:
        """Move the issues into the folder."""
        for file in (self.ground.root / "staged").iterdir():
            file.rename(self.ground.root / "issues" / "ready" / file.name)

    def status_command(self) -> list[str]:
        """Return factoryctl's."""
        ctl = [sys.executable, "-m", "factoryctl", "--socket", str(self.socket)]
        return [*ctl, "--json", "status"]

    def running(self) -> int:
        """Ask for the picture of now, whole."""
        answer = self.connection.call_raw("Status")
        return answer.count(b'"state":"running","run":')

    def stop(self, agent: Agent) -> None:
        """Kill an issue; the answer says that its tree is proven empty."""
        (killed,) = self.connection.call("Kill", targets=[f"B-{agent.number}"])["agents"]
        assert killed["emptied"], killed

    def stop_all(self) -> None:
        """Kill all issues."""
        answer = self.connection.call("Kill", all=True)
        assert all(agent["emptied"] for agent in answer["agents"])

    def supervisors(self) -> list[int]:
        """Return the daemon; the shims are the agents' parents and belong to their trees."""
        return [self.process.pid]

    def restart(self) -> None:
        """Start the next daemon."""
        self.connection.close()
        self.process.wait()
        self.up()

    def down(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _connects(self) -> bool:
        try:
            self.connection = Connection(self.socket)
        except OSError:
            return False
        return True
