"""Where issues come from and where their outcomes are written back."""
