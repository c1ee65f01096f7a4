"""Opens a runner: its settings, its start and shutdown, in an application or in a process of its own."""
