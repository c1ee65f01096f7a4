"""Orders: taken from the stock and stored, with the jobs that follow, in one transaction."""

from app.database import Order, take_from_stock
from app.dependencies import Background, SessionDep, SettingsDep
from app.schemas import OrderCreate
from app.tasks.orders import audit_order, notify_warehouse, send_order_confirmation


class OutOfStock(Exception):
    """The shop has less of the item than was ordered."""


class OrderService:
    """Takes orders in the transaction of the route or task that injects it."""

    def __init__(self, session: SessionDep, background: Background, settings: SettingsDep) -> None:
        self._session = session
        self._background = background
        self._initial_stock = settings.stock

    async def place(self, wanted: OrderCreate, *, user_id: int) -> Order:
        """Place an order, and add the jobs that confirm, audit and ship it.

        Each step waits for the one before it. A confirmation that becomes a dead letter does not stop the others.

        Raises:
            OutOfStock: The shop has less than was ordered; nothing was stored.
        """
        item, quantity = wanted.item, wanted.quantity
        if not await take_from_stock(self._session, item, quantity, initial=self._initial_stock):
            raise OutOfStock(f"there are no {quantity} x {item} left")
        order = Order(user_id=user_id, email=wanted.email, item=item, quantity=quantity)
        self._session.add(order)
        await self._session.flush()
        for step in (send_order_confirmation, audit_order, notify_warehouse):
            self._background.add_task(step.options(tag=f"order:{order.id}"), order.id)
        return order
