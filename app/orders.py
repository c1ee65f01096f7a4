"""Orders: taken from the stock, stored, and followed by their jobs, all in one transaction."""

from app.database import Order, take_from_stock
from app.schemas import OrderCreate
from app.services import Queue, ServicesDep, SessionDep
from app.tasks import TasksDep


class OutOfStock(Exception):
    """There is not as much as was ordered."""


class OrderService:
    """Takes orders, in the transaction of whoever asks for it: a route, or a task."""

    def __init__(
        self, session: SessionDep, queue: Queue, tasks: TasksDep, services: ServicesDep
    ) -> None:
        self._session = session
        self._queue = queue
        self._tasks = tasks.orders
        self._at_first = services.settings.stock

    async def place(self, wanted: OrderCreate, *, user_id: int) -> tuple[Order, str]:
        """Place an order: confirmation, audit entry and word to the warehouse follow, in that order.

        A confirmation that cannot be sent holds up nothing: when it is out of attempts, the next step comes.

        Returns:
            The order, and the id of the job that sends the confirmation.

        Raises:
            OutOfStock: nothing was stored.
        """
        item, quantity = wanted.item, wanted.quantity
        if not await take_from_stock(self._session, item, quantity, at_first=self._at_first):
            raise OutOfStock(f"there are no {quantity} x {item} left")
        order = Order(user_id=user_id, email=wanted.email, item=item, quantity=quantity)
        self._session.add(order)
        await self._session.flush()
        jobs = await self._queue.enqueue_chain(
            task.options(tag=f"order:{order.id}").call(order.id)
            for task in (
                self._tasks.send_order_confirmation,
                self._tasks.audit_order,
                self._tasks.notify_warehouse,
            )
        )
        return order, jobs[0].id
