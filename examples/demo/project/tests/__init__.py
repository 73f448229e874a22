"""The tests of the toolbox."""
