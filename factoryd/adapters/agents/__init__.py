"""Kinds of agent programs: how a command line is made for each."""
