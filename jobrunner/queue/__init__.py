"""What callers hold: the queue and its blocking twin, dead letters, schedules, background tasks and results."""
