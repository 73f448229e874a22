"""The kinds of work that are measured, a module for each."""
