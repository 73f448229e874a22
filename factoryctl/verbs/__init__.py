"""What each verb does: a module of its name with `run`, which returns the exit status."""
