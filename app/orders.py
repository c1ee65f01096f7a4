"""Orders: taken from the stock and stored, with the jobs that follow, in one transaction."""

from app.database import Order, take_from_stock
from app.dependencies import Queue, SessionDep, SettingsDep
from app.schemas import OrderCreate
from app.tasks.orders import audit_order, notify_warehouse, send_order_confirmation


class OutOfStock(Exception):
    """The shop has less of the item than was ordered."""


class OrderService:
    """Takes orders in the transaction of the route or task that injects it."""

    def __init__(self, session: SessionDep, queue: Queue, settings: SettingsDep) -> None:
        self._session = session
        self._queue = queue
        self._initial_stock = settings.stock

    async def place(self, wanted: OrderCreate, *, user_id: int) -> Order:
        """Place an order, and store the jobs that confirm, audit and ship it.

        They are a batch in the transaction of the order: it is confirmed and audited side by side, and then the
        warehouse is notified, even if the confirmation has become a dead letter.

        Raises:
            OutOfStock: The shop has less than was ordered; nothing was stored.
        """
        item, quantity = wanted.item, wanted.quantity
        if not await take_from_stock(self._session, item, quantity, initial=self._initial_stock):
            raise OutOfStock(f"there are no {quantity} x {item} left")
        order = Order(user_id=user_id, email=wanted.email, item=item, quantity=quantity)
        self._session.add(order)
        await self._session.flush()
        confirm, audit, notify = (
            step.options(tag=f"order:{order.id}").call(order.id)
            for step in (send_order_confirmation, audit_order, notify_warehouse)
        )
        await self._queue.enqueue_batch([confirm, audit], at_end=notify, name=f"order:{order.id}")
        return order
