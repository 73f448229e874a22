"""The supervisors that are compared, each behind the same Protocol."""
