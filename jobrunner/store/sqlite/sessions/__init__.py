"""Stores jobs in the application's own transactions."""
