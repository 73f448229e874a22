"""What its facts make of the record of a run."""

from msgspec.structs import replace

from factoryd.core.errors import IllegalFact
from factoryd.core.events import HandoffMade, RunEmptied, RunExited, RunResult, RunStarted
from factoryd.core.model import AgentState
from factoryd.core.records import RunRecord

RunFact = RunStarted | RunExited | RunEmptied | HandoffMade

_GOOD = frozenset({RunResult.SUCCEEDED, RunResult.CHANGES})


def move_run(run: RunRecord, fact: RunFact, at: float) -> RunRecord:
    """Return the record of a live run after a fact; raise `IllegalFact` for a second exit."""
    match fact:
        case RunStarted():
            place = replace(run.place, cgroup_inode=fact.cgroup_inode)
            running = AgentState.RUNNING
            return replace(run, state=running, identity=fact.identity, place=place, since=at)
        case RunExited():
            if run.exit is not None:
                raise IllegalFact(f"{fact.issue}: how run {fact.run} ended is known already")
            return replace(run, state=AgentState.EXITED, exit=fact.exit)
        case RunEmptied():
            good = fact.result in _GOOD
            return _ended(run, fact, AgentState.SUCCEEDED if good else AgentState.FAILED)
        case HandoffMade():
            return _ended(run, fact, AgentState.LEAKED)


def _ended(run: RunRecord, fact: RunEmptied | HandoffMade, state: AgentState) -> RunRecord:
    return replace(
        run,
        state=state,
        result=fact.result,
        reason=fact.reason,
        report=fact.report,
        receipt=fact.receipt,
    )
