"""Holds the statements that run in an open transaction."""
