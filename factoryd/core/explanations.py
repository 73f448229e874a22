"""What each kind of fact means to a reader of the journal: the texts of the message catalog."""

import re
import textwrap

from factoryd.core.events import (
    KINDS,
    AttemptEnded,
    AttemptStarted,
    ConfigurationLoaded,
    DaemonStarted,
    DaemonStopped,
    Fact,
    FactoryPaused,
    FactoryResumed,
    HandoffCleared,
    HandoffMade,
    IssueCancelled,
    IssueClaimed,
    IssueDone,
    IssueEscalated,
    IssueFrozen,
    IssueLeftReady,
    IssueParked,
    IssueReopened,
    IssueRerouted,
    IssueStopping,
    IssueThawed,
    NameCollided,
    OutcomeWithheld,
    OutcomeWritten,
    RunEmptied,
    RunExited,
    RunStarted,
    RunStarting,
    StageStarted,
)
from factoryd.core.model import Data
from factoryd.core.narration import message_id


class Explanation(Data, frozen=True, kw_only=True):
    """What `journalctl -x` shows below an entry.

    `@NAME@` stands for a field of the entry, and only for one that every entry of the kind has.
    """

    subject: str
    meaning: str
    advice: str


EXPLANATIONS: dict[type[Fact], Explanation] = {
    DaemonStarted: Explanation(
        subject="The daemon has started",
        meaning="A factoryd has opened its ledger. Agents that an earlier one left running are"
        " taken over now; it is ready once the service manager says so.",
        advice="Nothing is to be done. If nobody started it, the one before has died: the entries"
        " above say how, and no agent was lost by it.",
    ),
    DaemonStopped: Explanation(
        subject="The daemon has stopped",
        meaning="A factoryd has closed its ledger in good order. Clean means that none of its"
        " agents is left that it could not end; runs left to the next daemon were kept on purpose.",
        advice="If it was not clean, `factoryd reap --dry-run` says what is left and why, and"
        " `factoryd reap` ends it.",
    ),
    ConfigurationLoaded: Explanation(
        subject="The daemon works by this configuration",
        meaning="From now on agents are stopped in this way. It is kept in the ledger, so that they"
        " can be stopped so also when the configuration file cannot be read.",
        advice="Nothing is to be done. `factoryd check-config` shows all of the configuration.",
    ),
    FactoryPaused: Explanation(
        subject="Dispatching is paused",
        meaning="A person asked that no new issue is begun. What runs goes on. A pause lasts over"
        " restarts.",
        advice="`factoryctl resume` ends it.",
    ),
    FactoryResumed: Explanation(
        subject="Dispatching goes on",
        meaning="A pause has ended: issues that are ready are begun again.",
        advice="Nothing is to be done.",
    ),
    IssueClaimed: Explanation(
        subject="Issue @FACTORY_ISSUE@ is claimed",
        meaning="The issue passed the scope gate and has a route: this factory works on it, and its"
        " source shows that.",
        advice="Nothing is to be done. `factoryctl status @FACTORY_ISSUE@` shows how far it is,"
        " `factoryctl kill @FACTORY_ISSUE@` ends it.",
    ),
    IssueRerouted: Explanation(
        subject="Issue @FACTORY_ISSUE@ goes another way",
        meaning="The issue, or the configuration, changed before anything of it was started, and it"
        " was triaged anew.",
        advice="Nothing is to be done. `factoryctl explain @FACTORY_ISSUE@` says why it goes there.",
    ),
    IssueEscalated: Explanation(
        subject="Issue @FACTORY_ISSUE@ needs a person: it has no way to go",
        meaning="Triage found no repository and recipe for the issue, and never guesses. Nothing of"
        " it was started.",
        advice="`factoryctl explain @FACTORY_ISSUE@` shows each check and its answer. Mend the"
        " issue, which is looked at again once it changes, or add a route to the configuration.",
    ),
    IssueLeftReady: Explanation(
        subject="Issue @FACTORY_ISSUE@ is no longer listed as ready",
        meaning="Its source does not show the issue as ready any more, as it should be once it is"
        " claimed. If it is shown so again after its end, it is new work.",
        advice="Nothing is to be done.",
    ),
    IssueReopened: Explanation(
        subject="Issue @FACTORY_ISSUE@ is open again",
        meaning="The issue had ended and came back, or a person asked for it with"
        " `factoryctl retry @FACTORY_ISSUE@`. It has all its attempts again.",
        advice="Nothing is to be done. `factoryctl events --issue @FACTORY_ISSUE@` shows what was before.",
    ),
    AttemptStarted: Explanation(
        subject="An attempt at issue @FACTORY_ISSUE@ has started",
        meaning="The issue is dispatched: its agents run through the stages of its recipe.",
        advice="Nothing is to be done. `journalctl FACTORY_ISSUE=@FACTORY_ISSUE@` shows all that"
        " happens to it, its agents' output included.",
    ),
    StageStarted: Explanation(
        subject="A stage of issue @FACTORY_ISSUE@ has started",
        meaning="The agents of this stage begin together; the next stage begins once all of them"
        " are done. A round above 1 means that a reviewer has sent the work back.",
        advice="Nothing is to be done.",
    ),
    RunStarting: Explanation(
        subject="Agent @FACTORY_AGENT@ is about to be started",
        meaning="This is recorded before the first process of run @FACTORY_RUN@ exists, so that"
        " whatever comes of it is known.",
        advice="Nothing is to be done.",
    ),
    NameCollided: Explanation(
        subject="Agent @FACTORY_AGENT@ cannot start: an older run has its name",
        meaning="Something of the run named in the message is still alive. Two agents of one name"
        " are never run at once, so the newer one was not started.",
        advice="`factoryctl reap-orphans --dry-run` says what keeps the older run alive. Mend that,"
        " then `factoryctl reap-orphans`, then `factoryctl retry @FACTORY_ISSUE@` if the issue was"
        " given up meanwhile.",
    ),
    RunStarted: Explanation(
        subject="Agent @FACTORY_AGENT@ runs",
        meaning="The first process of run @FACTORY_RUN@ exists; the pid is that of its shim, which"
        " is the parent of the agent and keeps its exit status.",
        advice="Nothing is to be done. `factoryctl logs -f @FACTORY_AGENT@` and"
        " `journalctl -t @FACTORY_AGENT@` show what it says.",
    ),
    RunExited: Explanation(
        subject="The root process of agent @FACTORY_AGENT@ has ended",
        meaning="Others of run @FACTORY_RUN@ may still run; they are ended now. Exit status 0 is"
        " done, 10 asks for changes, 75 means not now, 128 + N is death by signal N.",
        advice="Nothing is to be done. If the status surprises, `factoryctl logs @FACTORY_AGENT@`"
        " has the agent's last words.",
    ),
    RunEmptied: Explanation(
        subject="Nothing of run @FACTORY_RUN@ is left",
        meaning="It is proven that no process of the run exists any more. The message begins with"
        " what the run amounted to.",
        advice="If it crashed or stalled, `factoryctl logs --run @FACTORY_RUN@ @FACTORY_AGENT@` has"
        " its output. It is resumed, and the issue tried again, as often as the configuration says;"
        " nothing is to be done unless the issue is parked.",
    ),
    HandoffMade: Explanation(
        subject="Run @FACTORY_RUN@ could not be emptied",
        meaning="The run has ended and processes of it are still there, for the reason in the"
        " message. It is tried again after 1, 2, 4 seconds and so on, at least once in the interval"
        " of [reaper]. Until nothing is left, no agent named @FACTORY_AGENT@ is started.",
        advice="`factoryctl reap-orphans --dry-run` says what is left and why now. End what holds"
        " it (a protected process, a dead file server), then `factoryctl reap-orphans`.",
    ),
    HandoffCleared: Explanation(
        subject="Run @FACTORY_RUN@ is proven empty at last",
        meaning="What was left of the run has ended, and the name of its agent is free again.",
        advice="Nothing is to be done.",
    ),
    AttemptEnded: Explanation(
        subject="An attempt at issue @FACTORY_ISSUE@ is over",
        meaning="All that the attempt started is emptied or handed over to the reaper. After a"
        " failure the issue cools down and is tried again, until it has no attempts left.",
        advice="If it failed, `journalctl FACTORY_ISSUE=@FACTORY_ISSUE@` shows what its agents said;"
        " nothing is to be done unless the issue is parked.",
    ),
    IssueFrozen: Explanation(
        subject="Issue @FACTORY_ISSUE@ stands still",
        meaning="A person asked for it: the processes of its agents are stopped where they are, and"
        " nothing of the issue starts.",
        advice="`factoryctl thaw @FACTORY_ISSUE@` has it go on, `factoryctl kill @FACTORY_ISSUE@`"
        " ends it.",
    ),
    IssueThawed: Explanation(
        subject="Issue @FACTORY_ISSUE@ goes on",
        meaning="It stood still, and its agents' processes are being let go on.",
        advice="Nothing is to be done.",
    ),
    IssueStopping: Explanation(
        subject="Issue @FACTORY_ISSUE@ is being ended",
        meaning="A person asked for its end; its agents are being stopped and their processes"
        " emptied.",
        advice="Nothing is to be done. An entry for each of its runs says that nothing of it is"
        " left, or what is.",
    ),
    IssueDone: Explanation(
        subject="Issue @FACTORY_ISSUE@ is done",
        meaning="All its stages have succeeded, or a person said that it is done, and nothing of it"
        " runs any more.",
        advice="Nothing is to be done.",
    ),
    IssueParked: Explanation(
        subject="Issue @FACTORY_ISSUE@ is given up",
        meaning="Its attempts or rounds are used up, or nothing could be made of it at all. Nothing"
        " of it runs, and it is not tried again by itself.",
        advice="`journalctl FACTORY_ISSUE=@FACTORY_ISSUE@` shows what happened. Mend what it failed"
        " of, then `factoryctl retry @FACTORY_ISSUE@`; or take it away from its source.",
    ),
    IssueCancelled: Explanation(
        subject="Issue @FACTORY_ISSUE@ was ended by a person",
        meaning="Nothing of it runs any more, and it is not tried again.",
        advice="`factoryctl retry @FACTORY_ISSUE@` begins it anew, if that was a mistake.",
    ),
    OutcomeWritten: Explanation(
        subject="The source of issue @FACTORY_ISSUE@ shows how it ended",
        meaning="The outcome is written back to where the issue came from.",
        advice="Nothing is to be done.",
    ),
    OutcomeWithheld: Explanation(
        subject="The source of issue @FACTORY_ISSUE@ was left alone",
        meaning="The issue has ended here and is out of this factory's scope by now, so that its"
        " source is not written to. The message says which outcome that would have been.",
        advice="Write it back by hand if it is wanted there; `factoryctl explain @FACTORY_ISSUE@`"
        " says what put the issue out of scope.",
    ),
}
"""One for each kind: a kind without a text here is a mistake that a test finds."""


_HEAD = """\
# What `journalctl -x` says about factoryd's entries.
# Written by docs/generate.py from the code; change factoryd/core/explanations.py instead.
"""

_ENTRY = """
-- {id}
Subject: {subject}
Defined-By: factoryd
Support: man:factoryd(8)
Documentation: man:factoryd(8)

{meaning}

{advice}
"""


def write_catalog() -> str:
    """Return the message catalog that explains every kind of fact (systemd.io/CATALOG)."""
    entries = [_write_entry(kind, EXPLANATIONS[kind]) for kind in KINDS]
    return _HEAD + "".join(entries)


def _write_entry(kind: type[Fact], text: Explanation) -> str:
    return _ENTRY.format(
        id=message_id(kind),
        subject=text.subject,
        meaning=_wrap(text.meaning),
        advice=_wrap(text.advice),
    )


def _wrap(text: str) -> str:
    """Return lines for a terminal; a command stays on one line, to be copied from there."""
    whole = re.sub("`[^`]+`", lambda command: command[0].replace(" ", "\0"), text)
    lines = textwrap.fill(whole, 78, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")
