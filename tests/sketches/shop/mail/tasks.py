"""The tasks that send mail; imports no application."""

from jobrunner import JobContext, TaskRouter

tasks = TaskRouter(prefix="mail.", queue="mail", max_attempts=8)


@tasks.task(timeout=30)
async def send_welcome(job: JobContext, email: str) -> str:
    return f"attempt {job.attempt} to {email}"
