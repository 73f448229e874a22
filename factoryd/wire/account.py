"""How the account of a reaper reads for a person."""

from factoryd.wire.answers import ReapReply


def describe_reaping(reply: ReapReply, *, dry_run: bool) -> list[str]:
    """Return an account as lines of text; `dry_run`: of what would be done."""
    done = "would be emptied" if dry_run else "emptied"
    lines = [
        f"{one.agent}  {done}: run {one.run}, pids {' '.join(map(str, one.pids)) or 'unknown'}"
        for one in reply.reaped
    ]
    for one in reply.skipped:
        pid = f"pid {one.pid}: " if one.pid is not None else ""
        lines.append(f"{one.agent or '(no agent)'}  skipped: {pid}{one.reason}")
    return lines or ["there was nothing to reap"]
