"""What applications declare: tasks with their options, retries, schedules, arguments and dependencies."""
