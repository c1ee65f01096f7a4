"""The shop's requests and responses; limits are checked here and nowhere else."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"

Email = Annotated[
    str,
    StringConstraints(
        to_lower=True, max_length=254, pattern=rf"^{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*$"
    ),
    Field(examples=["ada@example.com"]),
]
"""An address that every mail server accepts: ASCII dot-atom, nothing to quote or escape, in lower case."""

Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""One line of text for people."""

Item = Annotated[Line, Field(examples=["analytical engine"])]
"""The name of an item."""

RowId = Annotated[int, Path(ge=1, le=2**63 - 1)]
"""A key that SQLite can store."""

OrderStatus = Literal["placed", "confirmed", "audited", "at_warehouse"]
"""The steps of an order; one that became a dead letter is skipped."""

Quantity = Annotated[int, Field(ge=1, le=1_000_000)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UserCreate(_Request):
    """A registration."""

    username: Annotated[Line, Field(examples=["ada"])]
    email: Email


class Registered(BaseModel):
    """The new user, and the job that sends the welcome mail."""

    user_id: int
    job_id: str


class Subscribe(_Request):
    """A request for a reminder."""

    email: Email


class Subscribed(BaseModel):
    """The reminder's job and its time."""

    job_id: str
    scheduled_for: datetime
    created: bool
    """False if a reminder for this address was already waiting."""


class Confirm(_Request):
    """A request to confirm an address."""

    email: Email


class ConfirmationSent(BaseModel):
    """The job that sends the mail with the token."""

    job_id: str


class Confirmed(BaseModel):
    """The confirmed address."""

    email: str


class OrderCreate(_Request):
    """A new order."""

    email: Email
    item: Item
    quantity: Quantity = 1


class OrderPlaced(BaseModel):
    """The new order; its jobs carry the tag ``order:`` and its id."""

    order_id: int


class OrderOut(BaseModel):
    """An order and its status."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    item: str
    quantity: int
    status: OrderStatus
    created_at: datetime


class Delivery(_Request):
    """A delivery of an item to the shop."""

    item: Item
    quantity: Quantity


class StockOut(BaseModel):
    """The stock of an item, and the number sent to customers."""

    model_config = ConfigDict(from_attributes=True)

    item: str
    available: int
    sent: int


class SalesReport(BaseModel):
    """The number of orders, and the quantity of each item."""

    orders: int
    quantities: dict[str, int]


class Deleted(BaseModel):
    """The deleted id, and the job that writes the audit entry."""

    deleted: int
    job_id: str


class OutboxMail(BaseModel):
    """A mail in the outbox."""

    file: str
    message_id: str
    to: str
    subject: str
    date: datetime
