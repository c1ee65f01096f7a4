"""Implements the store in a PostgreSQL database."""
