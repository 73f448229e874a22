"""Users and groups as this machine knows them."""

import grp
import os
import pwd

import pytest

from factoryd.adapters.accounts import SystemAccounts


def test_our_own_user_is_that_of_this_process():
    assert SystemAccounts().own_uid == os.geteuid()


@pytest.mark.parametrize("name", ["root", "daemon", "games", "nobody"])
def test_a_user_is_known_by_name_and_primary_group(name):
    account = pwd.getpwnam(name)
    user, groups = SystemAccounts().look_up(account.pw_uid)
    assert user == name
    assert grp.getgrgid(account.pw_gid).gr_name in groups


def test_all_groups_of_a_user_count():
    for account in pwd.getpwall():
        listed = {group.gr_name for group in grp.getgrall() if account.pw_name in group.gr_mem}
        _, groups = SystemAccounts().look_up(account.pw_uid)
        namesakes = [one for one in pwd.getpwall() if one.pw_uid == account.pw_uid]
        if len(namesakes) == 1:
            assert listed <= groups


def test_a_number_without_a_user_has_no_name_and_no_group():
    taken = {account.pw_uid for account in pwd.getpwall()}
    free = next(uid for uid in range(4_000_000, 5_000_000) if uid not in taken)
    assert SystemAccounts().look_up(free) == (None, frozenset())
