"""The shop over HTTP.

A route writes its own row first and then its job, in two commits: a job never speaks of a row that is not there.  A
process that dies between the two has not answered yet, and leaves a row whose job is missing.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Request
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from app.audit import AuditEntry
from app.clock import utcnow
from app.database import Order, Token, User
from app.mail import Outbox
from app.schemas import (
    Confirm,
    ConfirmationSent,
    Confirmed,
    Deleted,
    OrderCreate,
    OrderOut,
    OrderPlaced,
    OutboxMail,
    Registered,
    RowId,
    Subscribe,
    Subscribed,
    UserCreate,
)
from app.services import Services
from app.settings import Settings
from app.tasks import ShopTasks, hash_of
from jobrunner.fastapi import Queue


@dataclass(frozen=True, slots=True)
class Shop:
    """What ``create_app`` made for the routes of one application."""

    settings: Settings
    services: Services
    tasks: ShopTasks


def get_shop(request: Request) -> Shop:
    """Return the application's own ``Shop``."""
    shop: Shop = request.app.state.shop
    return shop


ShopDep = Annotated[Shop, Depends(get_shop)]

Caller = Annotated[int, Header(alias="X-User-Id", ge=1, le=2**63 - 1)]
"""Who is asking, for the audit entries.  A shop with a login would take it from there."""

router = APIRouter(tags=["shop"])


@router.post(
    "/register", status_code=201, responses={409: {"description": "The address is taken."}}
)
async def register(user: UserCreate, queue: Queue, shop: ShopDep) -> Registered:
    """Register a user; the welcome mail follows."""
    row = User(username=user.username, email=user.email)
    try:
        async with shop.services.database.writing() as session:
            session.add(row)
    except IntegrityError:
        raise HTTPException(409, f"{user.email} is registered already") from None
    job = await queue.enqueue(shop.tasks.mail.send_welcome_email, user.email, user.username)
    return Registered(user_id=row.id, job_id=job.id)


@router.post("/subscribe", status_code=202)
async def subscribe(subscription: Subscribe, queue: Queue, shop: ShopDep) -> Subscribed:
    """Remind somebody after a while; once, however often it is asked for before that."""
    remind = shop.tasks.mail.send_reminder.options(
        delay=timedelta(seconds=shop.settings.reminder_delay),
        key=f"reminder:{subscription.email}",
    )
    job = await queue.enqueue(remind, subscription.email)
    return Subscribed(job_id=job.id, scheduled_for=job.run_at, created=job.created)


@router.post("/confirmations", status_code=202)
async def ask_for_confirmation(confirm: Confirm, queue: Queue, shop: ShopDep) -> ConfirmationSent:
    """Send a token to an address; who has it can confirm that the address is theirs."""
    job = await queue.enqueue(shop.tasks.tokens.send_token, confirm.email)
    return ConfirmationSent(job_id=job.id)


@router.post(
    "/confirmations/{token}",
    responses={404: {"description": "The token is not, or no more, good."}},
)
async def confirm(token: Annotated[str, Path(max_length=100)], shop: ShopDep) -> Confirmed:
    """Confirm an address by the token that was sent there; it is good once."""
    async with shop.services.database.writing() as session:
        email = await session.scalar(
            delete(Token)
            .where(Token.hash == hash_of(token), Token.expires_at > utcnow())
            .returning(Token.email)
        )
    if email is None:
        raise HTTPException(404, "the token is not, or no more, good")
    return Confirmed(email=email)


@router.post("/orders", status_code=201)
async def create_order(
    order: OrderCreate, queue: Queue, shop: ShopDep, caller: Caller = 1
) -> OrderPlaced:
    """Place an order; confirmation, audit entry and word to the warehouse follow in that order."""
    row = Order(user_id=caller, email=order.email, item=order.item, quantity=order.quantity)
    async with shop.services.database.writing() as session:
        session.add(row)
    job = await queue.enqueue(shop.tasks.orders.send_order_confirmation, row.id)
    return OrderPlaced(order_id=row.id, job_id=job.id)


@router.get("/orders/{order_id}", responses={404: {"description": "There is no such order."}})
async def get_order(order_id: RowId, shop: ShopDep) -> OrderOut:
    """Return an order and how far it has come."""
    async with shop.services.database.reading() as session:
        order = await session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, f"there is no order {order_id}")
    return OrderOut.model_validate(order)


@router.delete("/invoices/{invoice_id}")
async def delete_invoice(
    invoice_id: RowId, queue: Queue, shop: ShopDep, caller: Caller = 1
) -> Deleted:
    """Delete an invoice; an audit line follows."""
    entry = AuditEntry(user_id=caller, action="DELETE", resource=f"invoice:{invoice_id}")
    job = await queue.enqueue(shop.tasks.audit.write_audit_log, entry)
    return Deleted(deleted=invoice_id, job_id=job.id)


@router.delete("/users/{user_id}")
async def delete_user(user_id: RowId, queue: Queue, shop: ShopDep, caller: Caller = 1) -> Deleted:
    """Delete a user, if there still is one; an audit row follows."""
    entry = AuditEntry(user_id=caller, action="DELETE", resource=f"user:{user_id}")
    async with shop.services.database.writing() as session:
        await session.execute(delete(User).where(User.id == user_id))
    job = await queue.enqueue(shop.tasks.audit.write_audit_row, entry)
    return Deleted(deleted=user_id, job_id=job.id)


@router.get("/outbox", responses={404: {"description": "Mail goes over SMTP: there is no outbox."}})
async def outbox(shop: ShopDep) -> list[OutboxMail]:
    """Return what lies in the embedded outbox, newest first."""
    if not isinstance(shop.services.mailer, Outbox):
        raise HTTPException(404, "mail goes over SMTP (SHOP_SMTP_HOST): there is no outbox")
    return list(await shop.services.mailer.list())
