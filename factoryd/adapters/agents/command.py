"""The agent kind `command`: any program, its outcome told by its exit status."""

from collections.abc import Mapping

from factoryd.core.assignment import Assignment, factory_variables, placeholder_values
from factoryd.core.model import Command, Limits, RunId
from factoryd.core.template import expand


class CommandKind:
    """Makes a complete command from the agent's configuration; nothing else is inherited."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Take the daemon's environment, from which only `pass_env` is passed on."""
        self._environ = environ

    def command(self, work: Assignment, run: RunId, session: str | None) -> Command:
        """Return the command of one run: argv, environment, working directory."""
        passed = {
            name: self._environ[name] for name in work.config.pass_env if name in self._environ
        }
        return Command(
            argv=expand(work.config.command, placeholder_values(work, run, session)),
            env={**passed, **work.config.env, **factory_variables(work, run, session)},
            cwd=work.workspace,
            limits=Limits(
                memory_max_bytes=work.config.memory_max,
                pids_max=work.config.pids_max or None,
                cpu_weight=work.config.cpu_weight or None,
            ),
        )
