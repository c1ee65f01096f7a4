"""The daily report to the shop's owner."""

from datetime import timedelta

from app.clock import utcnow
from app.database import Order, User, count_since
from app.dependencies import DatabaseDep, MailerDep, SettingsDep
from app.mail import Mail
from jobrunner import Injected, JobContext, TaskRouter

tasks = TaskRouter(queue="mail")


@tasks.cron("0 8 * * *")
async def send_daily_report(
    job: JobContext,
    database: DatabaseDep = Injected,
    mailer: MailerDep = Injected,
    settings: SettingsDep = Injected,
) -> None:
    # The tick and not the present time: a late or repeated report still covers the same day.
    until = job.scheduled_for or utcnow()
    since = until - timedelta(days=1)
    async with database.reading() as session:
        users = await count_since(session, User, since, until)
        orders = await count_since(session, Order, since, until)
    text = f"From {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC:\n{users} new users, {orders} orders.\n"
    await mailer.send(Mail(settings.owner_email, "Daily report", text), id=job.id)
    job.logger.info("daily report sent")
