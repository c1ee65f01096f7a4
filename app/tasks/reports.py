"""The shop's reports: one by mail each day, and one on a page."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Final

from sqlalchemy import func, select

from app.clock import utcnow
from app.database import Order, User, count_since
from app.dependencies import DatabaseDep, MailerDep, SettingsDep
from app.mail import Mail
from app.schemas import SalesReport
from jobrunner import Injected, JobContext, TaskRouter

tasks = TaskRouter(queue="mail")

ORDERS_PER_PART: Final = 100


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


@tasks.task(queue="default")
async def make_sales_report(
    job: JobContext, database: DatabaseDep = Injected, settings: SettingsDep = Injected
) -> SalesReport:
    """Add up all orders, and say how far it is: a browser shows it while it waits."""
    async with database.reading() as session:
        total = await session.scalar(select(func.count()).select_from(Order)) or 0
    quantities = Counter[str]()
    read, last = 0, 0
    while True:
        # A transaction for each part, so that none stays open for long.
        async with database.reading() as session:
            part = (
                await session.execute(
                    select(Order.id, Order.item, Order.quantity)
                    .where(Order.id > last)
                    .order_by(Order.id)
                    .limit(ORDERS_PER_PART)
                )
            ).all()
        if not part:
            return SalesReport(orders=read, quantities=quantities)
        for id, item, quantity in part:
            quantities[item] += quantity
            last = id
        read += len(part)
        # Orders that came in since the count are read too.
        job.progress(read, max(read, total), "adding up orders")
        await asyncio.sleep(settings.report_pause)
