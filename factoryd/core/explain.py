"""Why an issue is dispatched or not: every check in the order of deciding, each with its answer."""

from factoryd.core.config import Config
from factoryd.core.lifecycle import IN_FLIGHT, TERMINAL
from factoryd.core.model import Data, Issue, IssueState
from factoryd.core.policy import (
    BACKOFF_BLOCK,
    IN_FLIGHT_BLOCK,
    LIMIT_BLOCK,
    PAUSE_BLOCK,
    SLOT_BLOCK,
    TERMINAL_BLOCK,
    block_reason,
    reopens,
)
from factoryd.core.records import IssueRecord
from factoryd.core.triage import Unrouted, choose_route, refuse_scope

UNKNOWN = "unknown issue"
SCOPE = "out of scope"
ROUTE = "no route"
NOT_READY = "not ready"
FROZEN = "frozen"
TROUBLE = "trouble"

CHECKS = (
    UNKNOWN,
    TERMINAL_BLOCK,
    IN_FLIGHT_BLOCK,
    BACKOFF_BLOCK,
    LIMIT_BLOCK,
    SCOPE,
    ROUTE,
    PAUSE_BLOCK,
    SLOT_BLOCK,
    NOT_READY,
    FROZEN,
    TROUBLE,
)
"""What may stand against an issue, in the order in which it is asked."""

WOULD_GO = "nothing stands against it: it is dispatched next"


class Finding(Data, frozen=True, kw_only=True):
    """The answer to one check. `passed` is None where there is nothing to ask it of."""

    check: str
    passed: bool | None
    detail: str


class Circumstances(Data, frozen=True, kw_only=True):
    """Everything the answers depend on.

    `shown` is the issue as a source shows it ready now. `trouble` is what it waits for that may
    never come, or what went wrong with it. `now` is in Unix seconds.
    """

    shown: Issue | None
    record: IssueRecord | None
    now: float
    paused: str | None
    slots: int
    free_slots: int
    trouble: str | None = None


def explain(seen: Circumstances, config: Config) -> tuple[Finding, ...]:
    """Return the finding of every check of `CHECKS`, in order; the first that fails decides."""
    findings = (
        _known(seen),
        *_gating(seen, config),
        _scope(seen, config),
        _route(seen, config),
        _finding(
            PAUSE_BLOCK,
            seen.paused is None,
            "dispatching goes on" if seen.paused is None else f"dispatching: {seen.paused}",
        ),
        _slot(seen),
        _ready(seen),
        _frozen(seen),
        _finding(TROUBLE, seen.trouble is None, seen.trouble or "there is none"),
    )
    assert tuple(one.check for one in findings) == CHECKS
    return findings


def sum_up(findings: tuple[Finding, ...]) -> str:
    """Return what the findings come to, in one line: the first that fails."""
    for one in findings:
        if one.passed is False:
            return f"{one.check}: {one.detail}"
    return WOULD_GO


def _finding(check: str, passed: bool | None, detail: str) -> Finding:  # noqa: FBT001
    return Finding(check=check, passed=passed, detail=detail)


def _known(seen: Circumstances) -> Finding:
    if seen.shown is not None:
        detail = f"the source {seen.shown.source!r} shows it as ready"
    elif seen.record is not None:
        detail = f"the ledger has it as {seen.record.state}"
    else:
        return _finding(UNKNOWN, passed=False, detail="no source shows it, and it never was here")
    return _finding(UNKNOWN, passed=True, detail=detail)


def _gating(seen: Circumstances, config: Config) -> tuple[Finding, ...]:
    record, most = seen.record, config.dispatch.max_attempts
    if record is None:
        names = (TERMINAL_BLOCK, IN_FLIGHT_BLOCK, BACKOFF_BLOCK, LIMIT_BLOCK)
        return tuple(_finding(name, passed=True, detail="it never was here") for name in names)
    if seen.shown is not None and reopens(record):
        others = (IN_FLIGHT_BLOCK, BACKOFF_BLOCK, LIMIT_BLOCK)
        anew = f"it was {record.state}, left ready and came back: new work"
        return (
            _finding(TERMINAL_BLOCK, passed=True, detail=anew),
            *(_finding(name, passed=True, detail="it begins anew") for name in others),
        )
    waits_s = 0.0 if record.not_before is None else record.not_before - seen.now
    spent = record.attempts_used >= most
    flies = record.state in IN_FLIGHT and block_reason(record, seen.now, most) in {
        IN_FLIGHT_BLOCK,
        None,
    }
    return (
        _finding(TERMINAL_BLOCK, record.state not in TERMINAL, _state(record)),
        _finding(IN_FLIGHT_BLOCK, not flies, _state(record)),
        _finding(
            BACKOFF_BLOCK,
            waits_s <= 0,
            f"{waits_s:.1f} s of its cooldown are left" if waits_s > 0 else "it does not cool down",
        ),
        _finding(LIMIT_BLOCK, not spent, f"{record.attempts_used} of {most} attempts are used"),
    )


def _state(record: IssueRecord) -> str:
    because = f": {record.reason}" if record.reason else ""
    attempt = f", attempt {record.attempt}" if record.state in IN_FLIGHT and record.attempt else ""
    return f"it is {record.state}{attempt}{because}"


def _issue(seen: Circumstances) -> tuple[Issue | None, str]:
    """Return the newest copy of the issue that there is, and where it is from."""
    if seen.shown is not None:
        return seen.shown, ""
    if seen.record is not None:
        return seen.record.issue, " (as it was when it was seen last)"
    return None, ""


def _scope(seen: Circumstances, config: Config) -> Finding:
    issue, whence = _issue(seen)
    if issue is None:
        return _finding(SCOPE, passed=None, detail="nothing is known of it")
    refused = refuse_scope(issue, config.safety)
    if refused is None:
        return _finding(SCOPE, passed=True, detail=f"it passes [safety]{whence}")
    return _finding(SCOPE, passed=False, detail=refused.removeprefix(f"{SCOPE}: ") + whence)


def _route(seen: Circumstances, config: Config) -> Finding:
    record = seen.record
    if record is not None and record.repo and record.state in IN_FLIGHT | TERMINAL:
        detail = f"repo {record.repo}, recipe {record.recipe}, chosen when it was claimed"
        return _finding(ROUTE, passed=True, detail=detail)
    issue, whence = _issue(seen)
    if issue is None:
        return _finding(ROUTE, passed=None, detail="nothing is known of it")
    route = choose_route(issue, config)
    if isinstance(route, Unrouted):
        return _finding(ROUTE, passed=False, detail=route.reason.removeprefix(f"{ROUTE}: "))
    detail = f"repo {route.repo}, recipe {route.recipe}, {route.why}{whence}"
    return _finding(ROUTE, passed=True, detail=detail)


def _slot(seen: Circumstances) -> Finding:
    if seen.record is not None and seen.record.state is IssueState.RUNNING:
        return _finding(SLOT_BLOCK, passed=True, detail="it has one")
    detail = f"{seen.free_slots} of {seen.slots} are free"
    return _finding(SLOT_BLOCK, passed=seen.free_slots > 0, detail=detail)


def _ready(seen: Circumstances) -> Finding:
    if seen.shown is not None:
        return _finding(NOT_READY, passed=True, detail=f"{seen.shown.source}: {seen.shown.ref}")
    if seen.record is not None and seen.record.state in IN_FLIGHT:
        return _finding(NOT_READY, passed=True, detail="it is claimed; read again before it starts")
    return _finding(NOT_READY, passed=False, detail="no source shows it as ready")


def _frozen(seen: Circumstances) -> Finding:
    if seen.record is not None and seen.record.frozen:
        return _finding(FROZEN, passed=False, detail=seen.record.frozen_reason or "by a person")
    return _finding(FROZEN, passed=True, detail="it is not")
