"""The SQL statements, run inside an open transaction."""
