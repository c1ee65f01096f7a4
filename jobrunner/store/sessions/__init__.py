"""Notices the end of the application's transactions, for every store."""
