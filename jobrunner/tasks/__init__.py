"""Tasks and schedules as applications declare them: options, retries, arguments, dependencies."""
