"""Programs that are run while something is measured."""
