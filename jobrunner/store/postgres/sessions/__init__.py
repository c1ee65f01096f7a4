"""Stores jobs in transactions of the application's own connections to PostgreSQL."""
