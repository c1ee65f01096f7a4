"""Opens and closes a runner, in an application or in a separate process."""
