"""The command that watches and steers factoryd over its socket."""
