"""How facts read in the journal."""

import logging

import pytest

from factoryd.core.events import KINDS, IssueParked, RunResult, kind_of
from factoryd.core.narration import SENTENCES, Weight, message_id, sentence, weight
from tests.unit.samples import one_of_each, run_emptied

FOR_EVER = {
    "daemon-started": "19b24902b3c15f74b5e97215c66d1864",
    "configuration-loaded": "db8056fca5ff5852a36c07eb2a74680b",
    "daemon-stopped": "035b800b24735b1a8cf07354b6a05075",
    "factory-paused": "19e0bc5018905f119ff4789e0522d9b3",
    "factory-resumed": "b596f5cd46e75cbc8302f9ba1e58ff4d",
    "issue-claimed": "2344e7ba52445cfe960bf35a5d6d2818",
    "issue-rerouted": "76be580838ad571faf996da2e45d2a74",
    "issue-escalated": "0536d95196c15cf8b576eb2f8ecbd9d3",
    "issue-left-ready": "33721b58442e5bbba77e30fdf5823f27",
    "issue-reopened": "56d6108b316758fba21f8bf8499f0295",
    "attempt-started": "1cd589abace751f1ac4d262d30e0fa56",
    "stage-started": "9a7e15599300541dba339817635536c5",
    "run-starting": "bdaf10f924c25ec7916a55fcbac9742b",
    "name-collided": "b87fe6f540055fcfb3b69b328f7edc6c",
    "run-started": "da80c9ec0ff6526588ff0b6a0cea13b4",
    "run-exited": "34fb7cb629705cfb812febc515ff1d44",
    "run-emptied": "f69edb295f4a54ac94a1f0278bae2c9f",
    "handoff-made": "7ca28152ec915a628adfd6414d06b5c8",
    "handoff-cleared": "5f4de10f93625428ac32bbbda3a6b261",
    "attempt-ended": "9bf7ddfd13cb53aca2080db4caa24dfc",
    "issue-frozen": "04f1e99164ca57888c4997aa2db9cdf9",
    "issue-thawed": "3edb6dd8e94c54f3a5577a6e5d786e3c",
    "issue-stopping": "7f2d0dc4a28d50d5ae6e41c33444c78f",
    "issue-done": "22be9f01a44355ff9a5f9a245ce088e7",
    "issue-parked": "f08f136a811955cbbd4db624dc73c9f1",
    "issue-cancelled": "9ddc8793325c5b7f9a34755b53d57b33",
    "outcome-written": "f38678cc2b8a58208f0e93ed9f194901",
    "outcome-withheld": "e3ed7d4cc66a54c5ba16e270c2ff25f5",
}
"""People's journal filters and catalogs name these: they never change."""


def test_every_kind_of_fact_has_a_sentence_a_weight_and_its_own_message_id():
    assert set(SENTENCES) == set(KINDS)
    assert len({message_id(kind) for kind in KINDS}) == len(KINDS)
    for fact in one_of_each():
        assert hasattr(logging, weight(fact).upper())


def test_message_ids_never_change():
    assert {kind_of(kind): message_id(kind) for kind in KINDS} == FOR_EVER


@pytest.mark.parametrize("fact", one_of_each(), ids=kind_of)
def test_a_sentence_names_the_issue_and_the_reason_and_leaves_nothing_unfilled(fact):
    said = sentence(fact)
    assert "{" not in said
    assert "\n" not in said
    assert fact.issue in said
    assert (getattr(fact, "reason", None) or "") in said


def test_what_needs_a_person_weighs_more_than_what_goes_as_planned():
    weights = {kind_of(fact): weight(fact) for fact in one_of_each()}
    assert weights["handoff-made"] is Weight.ERROR
    assert weights["issue-parked"] is Weight.WARNING
    assert weights["issue-escalated"] is Weight.WARNING
    assert weights["attempt-ended"] is Weight.WARNING
    assert weights["issue-done"] is Weight.INFO
    assert weight(run_emptied(result=RunResult.CRASHED)) is Weight.WARNING


def test_a_reason_with_braces_is_only_text():
    fact = IssueParked(issue="AR-{f}", reason="{0} {nobody}")
    assert sentence(fact) == "AR-{f}: parked: {0} {nobody}"
