"""Mails to users."""

from app.dependencies import MailerDep
from app.mail import Mail
from jobrunner import Concurrency, Injected, JobContext, TaskRouter

tasks = TaskRouter(queue="mail")


def domain(email: str) -> str:
    """Return the domain of an address: its mail server refuses clients that come too often at once."""
    return email.rpartition("@")[2].lower()


PER_DOMAIN = Concurrency(10, by=domain)


@tasks.task(concurrency=PER_DOMAIN)
async def send_welcome_email(
    job: JobContext, email: str, username: str, mailer: MailerDep = Injected
) -> None:
    text = f"Dear {username},\n\nwelcome to the shop.\n"
    await mailer.send(Mail(email, "Welcome to the shop", text), id=job.id)
    job.logger.info("welcome mail sent")


@tasks.task(concurrency=PER_DOMAIN)
async def send_reminder(job: JobContext, email: str, mailer: MailerDep = Injected) -> None:
    text = "You asked us to remind you: the shop is open.\n"
    await mailer.send(Mail(email, "Your reminder", text), id=job.id)
    job.logger.info("reminder sent")
