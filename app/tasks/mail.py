"""Mails to users."""

from app.dependencies import MailerDep
from app.mail import Mail
from jobrunner import Injected, JobContext, TaskRouter

tasks = TaskRouter(queue="mail")


@tasks.task
async def send_welcome_email(
    job: JobContext, email: str, username: str, mailer: MailerDep = Injected
) -> None:
    text = f"Dear {username},\n\nwelcome to the shop.\n"
    await mailer.send(Mail(email, "Welcome to the shop", text), id=job.id)
    job.logger.info("welcome mail sent")


@tasks.task
async def send_reminder(job: JobContext, email: str, mailer: MailerDep = Injected) -> None:
    text = "You asked us to remind you: the shop is open.\n"
    await mailer.send(Mail(email, "Your reminder", text), id=job.id)
    job.logger.info("reminder sent")
