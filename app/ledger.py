"""Writes the progress of orders in the transaction that settles each step.

Tasks pass these functions to ``job.write()``, which calls them with its connection and says what they may do.
"""

import sqlite3
from typing import get_args

from app.schemas import OrderStatus

_STEPS: tuple[OrderStatus, ...] = get_args(OrderStatus)


def order_confirmed(connection: sqlite3.Connection, order_id: int) -> None:
    """Record that the confirmation was sent."""
    _advance(connection, order_id, "confirmed")


def order_audited(connection: sqlite3.Connection, order_id: int, *, job_id: str) -> None:
    """Insert the order's audit entry."""
    connection.execute(
        "INSERT INTO audit_rows (job_id, user_id, action, resource, at)"
        " SELECT ?, user_id, 'CREATE', 'order:' || id, created_at FROM orders WHERE id = ?",
        (job_id, order_id),
    )
    _advance(connection, order_id, "audited")


def order_at_warehouse(connection: sqlite3.Connection, order_id: int) -> None:
    """Record that the warehouse was notified."""
    connection.execute(
        "UPDATE stock SET sent = sent + orders.quantity FROM orders"
        " WHERE orders.id = ? AND stock.item = orders.item",
        (order_id,),
    )
    _advance(connection, order_id, "at_warehouse")


def _advance(connection: sqlite3.Connection, order_id: int, after: OrderStatus) -> None:
    """Move the order to a status; an order that is past it (a dead letter was replayed) keeps its own."""
    before = _STEPS[: _STEPS.index(after)]
    marks = ", ".join("?" * len(before))
    connection.execute(
        f"UPDATE orders SET status = ? WHERE id = ? AND status IN ({marks})",  # noqa: S608 - marks
        (after, order_id, *before),
    )
