"""The machine's users and groups, as the name service knows them (nsswitch.conf(5))."""

import grp
import os
import pwd
from contextlib import suppress


class SystemAccounts:
    """Looks users up; the daemon's own id is that of its process."""

    @property
    def own_uid(self) -> int:
        """Return the daemon's own user id."""
        return os.geteuid()

    def look_up(self, uid: int) -> tuple[str | None, frozenset[str]]:
        """Return a user's name, if it has one, and its groups' names. Blocking."""
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            return None, frozenset()
        names = set[str]()
        for gid in os.getgrouplist(user.pw_name, user.pw_gid):
            with suppress(KeyError):
                names.add(grp.getgrgid(gid).gr_name)
        return user.pw_name, frozenset(names)
