"""The shop's routes.

A route writes its rows and its jobs in one transaction, committed before the response: whenever the process dies, both
are stored or neither.
"""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from app.audit import AuditEntry
from app.clock import utcnow
from app.database import Order, Stock, Token, User, add_to_stock
from app.dependencies import DatabaseDep, MailerDep, Queue, SessionDep, SettingsDep
from app.mail import Outbox
from app.orders import OrderService, OutOfStock
from app.schemas import (
    Confirm,
    ConfirmationSent,
    Confirmed,
    Deleted,
    Delivery,
    Item,
    OrderCreate,
    OrderOut,
    OrderPlaced,
    OutboxMail,
    Registered,
    RowId,
    StockOut,
    Subscribe,
    Subscribed,
    UserCreate,
)
from app.tasks.audit import write_audit_log, write_audit_row
from app.tasks.mail import send_reminder, send_welcome_email
from app.tasks.tokens import hash_of, send_token

Caller = Annotated[int, Header(alias="X-User-Id", ge=1, le=2**63 - 1)]
"""The user who calls, for the audit entries; a real shop would take it from the login."""

router = APIRouter(tags=["shop"])


@router.post(
    "/register", status_code=201, responses={409: {"description": "The address is taken."}}
)
async def register(user: UserCreate, session: SessionDep, queue: Queue) -> Registered:
    """Register a user; the welcome mail follows."""
    row = User(username=user.username, email=user.email)
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(409, f"{user.email} is registered already") from None
    job = await queue.enqueue(send_welcome_email, user.email, user.username)
    return Registered(user_id=row.id, job_id=job.id)


@router.post("/subscribe", status_code=202)
async def subscribe(subscription: Subscribe, queue: Queue, settings: SettingsDep) -> Subscribed:
    """Send a reminder after a while; asking again before that adds no second one."""
    remind = send_reminder.options(
        delay=timedelta(seconds=settings.reminder_delay),
        key=f"reminder:{subscription.email}",
    )
    job = await queue.enqueue(remind, subscription.email)
    return Subscribed(job_id=job.id, scheduled_for=job.run_at, created=bool(job.created))


@router.post("/confirmations", status_code=202)
async def ask_for_confirmation(confirm: Confirm, queue: Queue) -> ConfirmationSent:
    """Send a token to an address; its owner confirms the address with it."""
    job = await queue.enqueue(send_token, confirm.email)
    return ConfirmationSent(job_id=job.id)


@router.post(
    "/confirmations/{token}",
    responses={404: {"description": "The token is wrong or has expired."}},
)
async def confirm(token: Annotated[str, Path(max_length=100)], session: SessionDep) -> Confirmed:
    """Confirm an address with the token that was sent there; a token works once."""
    email = await session.scalar(
        delete(Token)
        .where(Token.hash == hash_of(token), Token.expires_at > utcnow())
        .returning(Token.email)
    )
    if email is None:
        raise HTTPException(404, "the token is wrong or has expired")
    return Confirmed(email=email)


@router.post("/orders", status_code=201, responses={409: {"description": "The stock is too low."}})
async def create_order(
    order: OrderCreate, orders: Annotated[OrderService, Depends()], caller: Caller = 1
) -> OrderPlaced:
    """Place an order; its confirmation and its audit entry follow, then the mail to the warehouse.

    The first two run side by side. The warehouse is notified when both have ended, even if one of them has become a
    dead letter.
    """
    try:
        placed = await orders.place(order, user_id=caller)
    except OutOfStock as error:
        raise HTTPException(409, str(error)) from None
    return OrderPlaced(order_id=placed.id)


@router.get("/orders/{order_id}", responses={404: {"description": "There is no such order."}})
async def get_order(order_id: RowId, database: DatabaseDep) -> OrderOut:
    """Return an order and its status."""
    async with database.reading() as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return OrderOut.model_validate(order)


@router.get("/stock", responses={404: {"description": "The item was never ordered or delivered."}})
async def get_stock(item: Annotated[Item, Query()], database: DatabaseDep) -> StockOut:
    """Return the stock of an item."""
    async with database.reading() as session:
        stock = await session.get(Stock, item)
    if stock is None:
        raise HTTPException(404, f"nobody has asked for {item} yet")
    return StockOut.model_validate(stock)


@router.post("/stock", status_code=201)
async def deliver(delivery: Delivery, session: SessionDep, settings: SettingsDep) -> StockOut:
    """Add to the stock of an item."""
    stock = await add_to_stock(session, delivery.item, delivery.quantity, initial=settings.stock)
    return StockOut.model_validate(stock)


@router.delete("/invoices/{invoice_id}")
async def delete_invoice(invoice_id: RowId, queue: Queue, caller: Caller = 1) -> Deleted:
    """Delete an invoice; a job writes the audit entry to the file."""
    entry = AuditEntry(user_id=caller, action="DELETE", resource=f"invoice:{invoice_id}")
    job = await queue.enqueue(write_audit_log, entry)
    return Deleted(deleted=invoice_id, job_id=job.id)


@router.delete("/users/{user_id}")
async def delete_user(
    user_id: RowId, session: SessionDep, queue: Queue, caller: Caller = 1
) -> Deleted:
    """Delete a user, if it exists; a job writes the audit entry to the table."""
    entry = AuditEntry(user_id=caller, action="DELETE", resource=f"user:{user_id}")
    await session.execute(delete(User).where(User.id == user_id))
    job = await queue.enqueue(write_audit_row, entry)
    return Deleted(deleted=user_id, job_id=job.id)


@router.get("/outbox", responses={404: {"description": "Mail goes over SMTP: there is no outbox."}})
async def outbox(mailer: MailerDep) -> list[OutboxMail]:
    """Return the mails in the outbox, newest first."""
    if not isinstance(mailer, Outbox):
        raise HTTPException(404, "mail goes over SMTP (SHOP_SMTP_HOST): there is no outbox")
    return list(await mailer.list())
