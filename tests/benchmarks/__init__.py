"""Measures the speed of jobrunner, next to plain ``sqlite3`` in the same run: ``just bench``."""
