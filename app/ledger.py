"""What the steps of an order write in the very transaction that settles them, and so exactly once.

Each function is handed to ``job.write()``, which calls it with its own connection; see there for what it may do.
"""

import sqlite3
from typing import get_args

from app.schemas import OrderStatus

_STEPS: tuple[OrderStatus, ...] = get_args(OrderStatus)


def order_confirmed(connection: sqlite3.Connection, order_id: int) -> None:
    """Write down that the customer has the confirmation."""
    _advance(connection, order_id, "confirmed")


def order_audited(connection: sqlite3.Connection, order_id: int, *, job_id: str) -> None:
    """Write the order's audit entry."""
    connection.execute(
        "INSERT INTO audit_rows (job_id, user_id, action, resource, at)"
        " SELECT ?, user_id, 'CREATE', 'order:' || id, created_at FROM orders WHERE id = ?",
        (job_id, order_id),
    )
    _advance(connection, order_id, "audited")


def order_at_warehouse(connection: sqlite3.Connection, order_id: int) -> None:
    """Write down that the warehouse was told what to send."""
    connection.execute(
        "UPDATE stock SET sent = sent + orders.quantity FROM orders"
        " WHERE orders.id = ? AND stock.item = orders.item",
        (order_id,),
    )
    _advance(connection, order_id, "at_warehouse")


def _advance(connection: sqlite3.Connection, order_id: int, after: OrderStatus) -> None:
    """Move the order on to a status; one that is past it already (its dead letter was replayed) stays there."""
    before = _STEPS[: _STEPS.index(after)]
    marks = ", ".join("?" * len(before))
    connection.execute(
        f"UPDATE orders SET status = ? WHERE id = ? AND status IN ({marks})",  # noqa: S608 - marks
        (after, order_id, *before),
    )
