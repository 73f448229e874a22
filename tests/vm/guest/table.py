"""Which checks there are, for which Debian."""

from collections.abc import Callable

from tests.vm.guest import containment, limits, restarts, uninterruptible

Check = Callable[[], None]

_BOTH: tuple[Check, ...] = (
    containment.a_delegated_unit_of_root_contains_its_agents_in_cgroups,
    containment.a_delegated_unit_of_a_user_contains_its_agents_in_cgroups,
    containment.a_service_of_a_users_own_systemd_contains_its_agents_in_cgroups,
    containment.an_escaped_tree_is_killed_to_the_last_process_and_its_cgroups_are_gone,
    restarts.a_killed_daemon_without_a_subgroup_leaves_controllers_off_and_is_replaced,
    restarts.the_shipped_unit_of_a_killed_daemon_is_restarted_with_its_agents,
    restarts.the_shipped_unit_goes_on_when_an_agent_is_out_of_memory,
    restarts.a_hung_daemon_is_killed_by_the_watchdog_and_replaced,
    limits.a_run_over_its_memory_limit_is_reported_as_that_with_the_culprit,
    limits.a_fork_storm_stops_at_its_limit_and_the_daemon_is_fine,
    limits.the_weight_and_the_peaks_of_a_run_are_the_kernels,
    limits.a_unit_without_a_subgroup_says_what_limits_need,
    uninterruptible.a_process_in_uninterruptible_sleep_is_handed_off_until_it_can_die,
)
_NEW_SYSTEMD: tuple[Check, ...] = (
    restarts.a_killed_daemon_in_a_subgroup_has_controllers_on_and_is_replaced,
)

CHECKS: dict[str, dict[str, Check]] = {
    suite: {check.__name__: check for check in checks}
    for suite, checks in {"bookworm": _BOTH, "trixie": _BOTH + _NEW_SYSTEMD}.items()
}
"""By suite and name."""
