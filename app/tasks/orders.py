"""The steps of an order: the first two run side by side, the last one when both have ended."""

from app.database import Database, Order
from app.dependencies import DatabaseDep, MailerDep, SettingsDep
from app.ledger import advanced, order_audited, sent_to_warehouse
from app.mail import Mail
from jobrunner import Bury, Injected, JobContext, TaskRouter

tasks = TaskRouter(queue="mail")


@tasks.task
async def send_order_confirmation(
    job: JobContext, order_id: int, database: DatabaseDep = Injected, mailer: MailerDep = Injected
) -> None:
    order = await find_order(database, order_id)
    text = f"You ordered {order.quantity} x {order.item}. Thank you.\n"
    await mailer.send(Mail(order.email, f"Your order {order_id}", text), id=job.id)
    job.logger.info("order %d confirmed", order_id)
    job.write(advanced(order_id, "confirmed"))


@tasks.task(queue="default")
async def audit_order(job: JobContext, order_id: int) -> None:
    job.write(order_audited(order_id, job_id=job.id))
    job.write(advanced(order_id, "audited"))


@tasks.task
async def notify_warehouse(
    job: JobContext,
    order_id: int,
    database: DatabaseDep = Injected,
    mailer: MailerDep = Injected,
    settings: SettingsDep = Injected,
) -> None:
    order = await find_order(database, order_id)
    text = f"Please send {order.quantity} x {order.item} to {order.email}.\n"
    await mailer.send(Mail(settings.warehouse_email, f"Order {order_id}", text), id=job.id)
    job.logger.info("warehouse notified of order %d", order_id)
    job.write(sent_to_warehouse(order_id))
    job.write(advanced(order_id, "at_warehouse"))


async def find_order(database: Database, order_id: int) -> Order:
    """Return an order.

    Raises:
        Bury: There is no such order, so that another attempt would fail too.
    """
    async with database.reading() as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise Bury(f"there is no order {order_id}")
    return order
