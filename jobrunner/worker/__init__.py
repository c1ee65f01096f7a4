"""One process at work: it claims jobs, runs and settles them, fires schedules and maintains the store."""
