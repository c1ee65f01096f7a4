"""Holds the SQL statements and the functions that run them in an open transaction."""
