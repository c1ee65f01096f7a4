"""Writes the progress of orders in the transaction that settles each step.

Tasks pass these statements to ``job.write()``, which runs them on SQLite and on PostgreSQL.
"""

from typing import get_args

from sqlalchemy import Insert, String, Update, cast, insert, literal, select, update

from app.database import AuditRow, Order, Stock
from app.schemas import OrderStatus

_STEPS: tuple[OrderStatus, ...] = get_args(OrderStatus)


def advanced(order_id: int, after: OrderStatus) -> Update:
    """Move an order to a status; an order that is past it (a dead letter was replayed) keeps its own."""
    before = _STEPS[: _STEPS.index(after)]
    return update(Order).where(Order.id == order_id, Order.status.in_(before)).values(status=after)


def order_audited(order_id: int, *, job_id: str) -> Insert:
    """Insert the order's audit entry."""
    entry = select(
        literal(job_id),
        Order.user_id,
        literal("CREATE"),
        literal("order:") + cast(Order.id, String),
        Order.created_at,
    ).where(Order.id == order_id)
    return insert(AuditRow).from_select(["job_id", "user_id", "action", "resource", "at"], entry)


def sent_to_warehouse(order_id: int) -> Update:
    """Count the items of an order as sent."""
    return (
        update(Stock)
        .where(Order.id == order_id, Stock.item == Order.item)
        .values(sent=Stock.sent + Order.quantity)
    )
