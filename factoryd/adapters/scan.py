"""One look at every process of the machine, for finding runs by name and by identity."""

from factoryd.adapters.proc import boot_id, list_pids, read_argv, read_stat
from factoryd.core.lookup import Scan, ScanFailed, Seen


def scan() -> Scan | ScanFailed:
    """Return every process that has not ended; a part of them would be no answer. Blocking."""
    try:
        seen = [one for pid in list_pids() if (one := _look(pid)) is not None]
    except OSError as error:
        return ScanFailed(reason=f"the processes cannot be listed: {error.strerror}")
    return Scan(boot_id=boot_id(), processes=tuple(seen))


def _look(pid: int) -> Seen | None:
    stat = read_stat(pid)
    if stat is None or stat.ended:
        return None
    return Seen(identity=stat.identity, ppid=stat.ppid, argv=read_argv(pid))
