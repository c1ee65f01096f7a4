"""Shows jobs to an application's own users: their status, and answers that wait."""
