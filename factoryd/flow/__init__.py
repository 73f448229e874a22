"""Acts: trio tasks; each module is one kind of task and owns the nursery below it."""
