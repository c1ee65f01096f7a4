"""Runs the jobs of one process: claims and settles them, fires schedules, maintains the store."""
