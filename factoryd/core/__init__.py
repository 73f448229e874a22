"""Decides: pure data, rules and tables, without I/O, clock or randomness."""
