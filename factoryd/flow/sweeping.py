"""Empties trees that nobody owns, all together, and tells what came of each."""

from collections.abc import Callable, Iterator, Sequence

import trio

from factoryd.core.lookup import Alone, Known
from factoryd.core.model import Data, Skipped, StopPreview, StopReport
from factoryd.core.records import StopRule
from factoryd.flow.stopping import Stopping
from factoryd.ports import FoundTrees, Tree
from factoryd.wire.answers import LeftView, ReapedView, ReapReply


class Swept(Data, frozen=True, kw_only=True):
    """What came of one tree; without a report, what would be done."""

    known: Known
    found: StopPreview
    report: StopReport | None = None

    @property
    def was_there(self) -> bool:
        """Say whether there was anything to end."""
        ended = self.report is not None and self.report.killed > 0
        return bool(self.found.pids or self.found.skipped or ended)

    @property
    def is_reaped(self) -> bool:
        """Say whether something was ended (or would be) and nothing of the tree is left."""
        return self.was_there and self.survivors == 0

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Return who of the tree was left alone (or would be)."""
        return self.found.skipped if self.report is None else self.report.skipped

    @property
    def survivors(self) -> int:
        """Return how many processes may be left, none only if that is proven."""
        if self.report is None:
            return len(self.found.skipped)
        return 0 if self.report.emptied else max(1, self.report.survivors)


async def sweep(
    trees: FoundTrees,
    owed: Sequence[Known],
    rule: StopRule,
    done: Callable[[], None] = lambda: None,
) -> list[Swept]:
    """Empty trees; `done` is called after each. They share the grace; cancelling leaves the rest.

    One that was asked to stop before is not asked again.
    """
    swept, stopping = list[Swept](), Stopping(rule.grace_s)

    async def empty(known: Known) -> None:
        tree = await trees.adopt(known.place, known.identity)
        try:
            found = await _look(tree, rule)
            if known.asked:
                report = await tree.kill(rule.policy)
            else:
                report = await stopping.empty(tree, rule.policy)
        finally:
            tree.close()
        swept.append(Swept(known=known, found=found, report=report))
        done()

    async with trio.open_nursery() as nursery:
        for known in owed:
            nursery.start_soon(empty, known)
    return swept


async def preview(trees: FoundTrees, owed: Sequence[Known], rule: StopRule) -> list[Swept]:
    """Return what `sweep` would do; nobody is touched."""
    swept = list[Swept]()
    for known in owed:
        tree = await trees.adopt(known.place, known.identity)
        try:
            swept.append(Swept(known=known, found=await _look(tree, rule)))
        finally:
            tree.close()
    return swept


async def _look(tree: Tree, rule: StopRule) -> StopPreview:
    try:
        return await trio.to_thread.run_sync(tree.preview, rule.policy)
    except OSError as error:
        reason = f"the processes of the tree cannot be listed: {error.strerror}"
        return StopPreview(skipped=(Skipped(pid=0, reason=reason),))


def reap_reply(daemon: str, swept: Sequence[Swept], alone: Sequence[Alone] = ()) -> ReapReply:
    """Return the account of a sweep; `daemon` is how the daemon was found."""
    swept = sorted(swept, key=lambda one: one.known.place.run)
    left = [LeftView(agent=one.agent, pid=one.pid, reason=one.reason) for one in alone]
    named = {one.agent for one in alone}
    for one in swept:
        left += _leave(one, silent=one.known.agent in named)
    return ReapReply(
        daemon=daemon,
        reaped=tuple(_reaped(one) for one in swept if one.is_reaped),
        skipped=tuple(dict.fromkeys(left)),
        survivors=sum(one.unproven for one in alone) + sum(one.survivors for one in swept),
    )


def _reaped(one: Swept) -> ReapedView:
    place = one.known.place
    return ReapedView(agent=one.known.agent, issue=place.issue, run=place.run, pids=one.found.pids)


def _leave(one: Swept, *, silent: bool) -> Iterator[LeftView]:
    """Yield what was left alone of a tree; that nothing was there is not said twice."""
    for skipped in one.skipped:
        yield LeftView(agent=one.known.agent, pid=skipped.pid or None, reason=skipped.reason)
    if one.survivors and not one.skipped:
        yield LeftView(agent=one.known.agent, pid=None, reason="not proven empty")
    if not one.was_there and not one.survivors and not silent:
        pid = one.known.identity.pid if one.known.identity is not None else None
        yield LeftView(agent=one.known.agent, pid=pid, reason="gone: nothing of it runs any more")
