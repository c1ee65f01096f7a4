"""What the shop does outside its requests: mail, the way of an order, audit entries, and what comes round each day.

A task may run more than once (its process can die after the work and before that is written down).  What it writes to
the shop's tables is written in the transaction that settles its job, and so exactly once; what it does outside of them
is made to be repeated: mails keep their ``Message-ID``, the audit file knows its lines.
"""

import hashlib
import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import Depends
from tenacity import wait_exponential, wait_random

from app.audit import AuditEntry, AuditLog
from app.clock import utcnow
from app.database import (
    AuditRow,
    Database,
    Order,
    Token,
    User,
    count_since,
    delete_old_tokens,
)
from app.ledger import order_at_warehouse, order_audited, order_confirmed
from app.mail import Mail, Mailer
from app.services import Services, SessionDep
from app.settings import Settings
from jobrunner import Bury, Injected, JobContext, TaskRouter


class ShopTasks(TaskRouter):
    """The tasks of one application, bound to its services."""

    def __init__(self, services: Services, settings: Settings) -> None:
        super().__init__()
        self.mail = MailTasks(services.mailer, settings)
        self.orders = OrderTasks(services.mailer, services.database, settings)
        self.audit = AuditTasks(services.audit_log)
        self.tokens = TokenTasks(services.mailer, services.database, settings)
        self.reports = ReportTasks(services.mailer, services.database, settings)
        self.include(self.mail, self.orders, self.audit, self.tokens, self.reports)


class PatientRouter(TaskRouter):
    """For tasks that send mail: a mail server may be away for an hour and back."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            queue="mail",
            max_attempts=settings.mail_attempts,
            # The random part keeps mails that failed together from coming back together.
            wait=wait_exponential(
                multiplier=settings.mail_wait, exp_base=4, max=settings.mail_wait_max
            )
            + wait_random(0, settings.mail_wait / 2),
            # One late answer is the mail server's own timeout; this is for many that are nearly late.
            timeout=3 * settings.smtp_timeout,
        )


class MailTasks(PatientRouter):
    """A mail each."""

    def __init__(self, mailer: Mailer, settings: Settings) -> None:
        super().__init__(settings)

        @self.task
        async def send_welcome_email(job: JobContext, email: str, username: str) -> None:
            text = f"Dear {username},\n\nwelcome to the shop.\n"
            await mailer.send(Mail(email, "Welcome to the shop", text), id=job.id)
            job.logger.info("welcome mail sent")

        @self.task
        async def send_reminder(job: JobContext, email: str) -> None:
            text = "You asked us to remind you: the shop is open.\n"
            await mailer.send(Mail(email, "Your reminder", text), id=job.id)
            job.logger.info("reminder sent")

        self.send_welcome_email = send_welcome_email
        self.send_reminder = send_reminder


class OrderTasks(PatientRouter):
    """The three steps of an order, one after another: each starts when the one before has succeeded, or is dead."""

    def __init__(self, mailer: Mailer, database: Database, settings: Settings) -> None:
        super().__init__(settings)

        async def find(order_id: int) -> Order:
            async with database.reading() as session:
                order = await session.get(Order, order_id)
            if order is None:
                raise Bury(f"there is no order {order_id}")
            return order

        @self.task
        async def send_order_confirmation(job: JobContext, order_id: int) -> None:
            order = await find(order_id)
            text = f"You ordered {order.quantity} x {order.item}. Thank you.\n"
            await mailer.send(Mail(order.email, f"Your order {order_id}", text), id=job.id)
            job.logger.info("order %d confirmed", order_id)
            job.write(order_confirmed, order_id)

        @self.task(queue="default")
        async def audit_order(job: JobContext, order_id: int) -> None:
            job.write(order_audited, order_id, job_id=job.id)

        @self.task
        async def notify_warehouse(job: JobContext, order_id: int) -> None:
            order = await find(order_id)
            text = f"Please send {order.quantity} x {order.item} to {order.email}.\n"
            mail = Mail(settings.warehouse_email, f"Order {order_id}", text)
            await mailer.send(mail, id=job.id)
            job.logger.info("warehouse told of order %d", order_id)
            job.write(order_at_warehouse, order_id)

        self.send_order_confirmation = send_order_confirmation
        self.audit_order = audit_order
        self.notify_warehouse = notify_warehouse


class TokenTasks(PatientRouter):
    """Tokens that confirm an address: sent, and cleaned up when their time is over."""

    def __init__(self, mailer: Mailer, database: Database, settings: Settings) -> None:
        super().__init__(settings)

        @self.task
        async def send_token(job: JobContext, email: str) -> None:
            # A repeated attempt makes another token: the first one's text is in no file of ours, only its hash.
            token = secrets.token_urlsafe(24)
            expires_at = utcnow() + timedelta(seconds=settings.token_lifetime)
            async with database.writing() as session:
                session.add(Token(hash=hash_of(token), email=email, expires_at=expires_at))
            await mailer.send(Mail(email, "Your token", f"{token}\n"), id=job.id)

        @self.every(minutes=15, overlap="skip")
        @self.task(queue="default")
        async def clean_up_tokens(job: JobContext, session: SessionDep = Injected) -> int:
            gone = await delete_old_tokens(session, now=utcnow())
            job.logger.info("%d old token(s) deleted", gone)
            return gone

        self.send_token = send_token
        self.clean_up_tokens = clean_up_tokens


class ReportTasks(PatientRouter):
    """What the shop's owner reads with the first coffee."""

    def __init__(self, mailer: Mailer, database: Database, settings: Settings) -> None:
        super().__init__(settings)

        @self.cron("0 8 * * *")
        async def send_daily_report(job: JobContext) -> None:
            # The tick and not the present: a report that is late, or repeated, is still of the same day.
            until = job.scheduled_for or utcnow()
            since = until - timedelta(days=1)
            async with database.reading() as session:
                users = await count_since(session, User, since, until)
                orders = await count_since(session, Order, since, until)
            text = f"From {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC:\n{users} new users, {orders} orders.\n"
            await mailer.send(Mail(settings.owner_email, "Daily report", text), id=job.id)
            job.logger.info("daily report sent")

        self.send_daily_report = send_daily_report


def hash_of(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class AuditTasks(TaskRouter):
    """An audit entry each, into the file or the table."""

    def __init__(self, audit_log: AuditLog) -> None:
        super().__init__()

        @self.task
        def write_audit_log(job: JobContext, entry: AuditEntry) -> None:
            audit_log.append(entry, job_id=job.id)

        @self.task
        async def write_audit_row(
            job: JobContext, entry: AuditEntry, session: SessionDep = Injected
        ) -> None:
            session.add(AuditRow(job_id=job.id, **entry.model_dump()))

        self.write_audit_log = write_audit_log
        self.write_audit_row = write_audit_row


async def get_tasks() -> ShopTasks:
    """Stand for the application's own tasks; see ``app.services``."""
    raise NotImplementedError("create_app() puts its own function in place of this one")


TasksDep = Annotated[ShopTasks, Depends(get_tasks)]
