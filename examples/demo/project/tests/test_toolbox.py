"""The package itself."""

import unittest

import toolbox


class Package(unittest.TestCase):
    """What holds for every tool."""

    def test_it_says_what_it_is(self) -> None:
        """The package has a docstring."""
        assert toolbox.__doc__
