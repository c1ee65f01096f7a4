"""How fast jobrunner is, with what plain ``sqlite3`` does in the same run beside it: ``just bench``."""
