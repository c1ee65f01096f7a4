"""The runner as its users open it and hold it."""
