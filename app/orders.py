"""Orders: taken from the stock, stored, and followed by their jobs, all in one transaction."""

from app.database import Order, take_from_stock
from app.schemas import OrderCreate
from app.services import Background, ServicesDep, SessionDep
from app.tasks import TasksDep


class OutOfStock(Exception):
    """There is not as much as was ordered."""


class OrderService:
    """Takes orders, in the transaction of whoever asks for it: a route, or a task."""

    def __init__(
        self, session: SessionDep, background: Background, tasks: TasksDep, services: ServicesDep
    ) -> None:
        self._session = session
        self._background = background
        self._tasks = tasks.orders
        self._at_first = services.settings.stock

    async def place(self, wanted: OrderCreate, *, user_id: int) -> Order:
        """Place an order: confirmation, audit entry and word to the warehouse follow, in that order.

        A confirmation that cannot be sent holds up nothing: when it is a dead letter, the next step comes.

        Raises:
            OutOfStock: nothing was stored.
        """
        item, quantity = wanted.item, wanted.quantity
        if not await take_from_stock(self._session, item, quantity, at_first=self._at_first):
            raise OutOfStock(f"there are no {quantity} x {item} left")
        order = Order(user_id=user_id, email=wanted.email, item=item, quantity=quantity)
        self._session.add(order)
        await self._session.flush()
        for step in (
            self._tasks.send_order_confirmation,
            self._tasks.audit_order,
            self._tasks.notify_warehouse,
        ):
            self._background.add_task(step.options(tag=f"order:{order.id}"), order.id)
        return order
