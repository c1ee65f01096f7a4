"""What goes in and out of the shop over HTTP; limits stand here, so that nothing later on has to ask again."""

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
"""An address that every mail server takes: dot-atom, ASCII, nothing to quote or escape; in lower case, so that one
person has one."""

Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""One line of text for people."""

Item = Annotated[Line, Field(examples=["analytical engine"])]
"""What the shop sells."""

RowId = Annotated[int, Path(ge=1, le=2**63 - 1)]
"""What SQLite can hold as a key."""

OrderStatus = Literal["placed", "confirmed", "audited", "at_warehouse"]
"""In this order; an order may skip a step that became a dead letter."""

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
    """A wish to be reminded."""

    email: Email


class Subscribed(BaseModel):
    """When the reminder goes out."""

    job_id: str
    scheduled_for: datetime
    created: bool
    """False if a reminder for this address was waiting already."""


class Confirm(_Request):
    """A wish to confirm an address."""

    email: Email


class ConfirmationSent(BaseModel):
    """The job that sends the mail with the token."""

    job_id: str


class Confirmed(BaseModel):
    """The address is its owner's."""

    email: str


class OrderCreate(_Request):
    """What somebody wants to buy."""

    email: Email
    item: Item
    quantity: Quantity = 1


class OrderPlaced(BaseModel):
    """The new order; its jobs carry the tag ``order:`` and its id."""

    order_id: int


class OrderOut(BaseModel):
    """An order, and how far its jobs have brought it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    item: str
    quantity: int
    status: OrderStatus
    created_at: datetime


class Delivery(_Request):
    """More of an item."""

    item: Item
    quantity: Quantity


class StockOut(BaseModel):
    """How much there is of an item, and how much of it has gone to customers."""

    model_config = ConfigDict(from_attributes=True)

    item: str
    available: int
    sent: int


class Deleted(BaseModel):
    """What is gone, and the job that writes the audit entry."""

    deleted: int
    job_id: str


class OutboxMail(BaseModel):
    """A mail in the embedded outbox."""

    file: str
    message_id: str
    to: str
    subject: str
    date: datetime
