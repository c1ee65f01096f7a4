"""The tutorial, every example."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel
from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tenacity import retry_if_not_exception_type, wait_exponential

from fastapi import Depends, FastAPI
from jobrunner import Bury, DeadLetter, Injected, JobContext, JobRunner, Retry, Snooze
from jobrunner.fastapi import DurableBackgroundTasks, JobQueue
from jobrunner.sqlalchemy import attach

engine = create_async_engine("sqlite+aiosqlite:///shop.db")
attach(engine)
Session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with Session.begin() as s:
        yield s


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]

jobs = JobRunner(
    "sqlite:///shop.db",
    session=Depends(get_session, scope="function"),
    queues={"default": 20, "mail": 50},
)
app = FastAPI(lifespan=jobs.lifespan)


def require_admin() -> None: ...


app.include_router(
    jobs.router(read=Depends(require_admin), act=Depends(require_admin)), prefix="/jobs"
)
Queue = Annotated[JobQueue, Depends(jobs.queue)]
Background = Annotated[DurableBackgroundTasks, Depends(jobs.background)]


class UserCreate(BaseModel):
    username: str
    email: str


class Order(BaseModel):
    email: str


# -- a welcome mail


@jobs.task(queue="mail")
async def send_welcome_email(email: str, username: str) -> None: ...


@app.post("/register", status_code=201)
async def register(user: UserCreate, bt: Background) -> dict[str, str]:
    bt.add_task(send_welcome_email, user.email, user.username)
    return {"status": "ok"}


# -- an audit log in a file


@jobs.task
def write_audit_log(
    user_id: int,
    action: str,
    resource: str,
    detail: dict[str, Any] = {},  # noqa: B006 - as users write it
) -> None:
    with Path("audit.log").open("a") as f:
        f.write(json.dumps({"user_id": user_id, "action": action, "resource": resource}) + "\n")


@app.delete("/invoices/{invoice_id}")
async def delete_invoice(
    invoice_id: int, bt: Background, current_user_id: int = 42
) -> dict[str, int]:
    bt.add_task(
        write_audit_log,
        user_id=current_user_id,
        action="DELETE",
        resource=f"invoice:{invoice_id}",
        detail={"invoice_id": invoice_id},
    )
    return {"deleted": invoice_id}


# -- an audit log in the database


class Base(DeclarativeBase): ...


class AuditLog(Base):
    __tablename__ = "audit_logs"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    action: Mapped[str] = mapped_column(String(50))


@jobs.task
async def log_to_db(user_id: int, action: str, session: SessionDep = Injected) -> None:
    session.add(AuditLog(user_id=user_id, action=action))


@jobs.task
async def log_to_db_default_form(
    user_id: int, action: str, session: AsyncSession = Depends(get_session)
) -> None:
    session.add(AuditLog(user_id=user_id, action=action))


@app.delete("/users/{user_id}")
async def delete_user(user_id: int, bt: Background) -> dict[str, int]:
    bt.add_task(log_to_db, user_id=1, action="DELETE_USER")
    bt.add_task(log_to_db_default_form, user_id=1, action="DELETE_USER")
    return {"deleted": user_id}


# -- several in order, through a service


@jobs.task
async def confirm(email: str, order_id: int) -> None: ...


@jobs.task
async def notify_warehouse(order_id: int) -> None: ...


class OrderService:
    def __init__(self, background: Background) -> None:
        self.bt = background

    async def create(self, order: Order) -> int:
        self.bt.add_task(confirm, order.email, 99)
        self.bt.add_task(write_audit_log, user_id=1, action="CREATE_ORDER", resource="order:99")
        self.bt.add_task(notify_warehouse, 99)
        return 99


@app.post("/orders")
async def create_order(
    order: Order, service: Annotated[OrderService, Depends(OrderService)]
) -> int:
    return await service.create(order)


# -- a reminder in an hour


@jobs.task(queue="mail")
async def send_reminder(email: str) -> str:
    return "done"


@app.post("/subscribe")
async def subscribe(email: str, queue: Queue) -> dict[str, Any]:
    job = await queue.enqueue(
        send_reminder.options(delay=timedelta(hours=1), key=f"reminder:{email}"), email
    )
    return {"scheduled_for": job.run_at, "created": job.created}


# -- a report every morning


@jobs.cron("0 8 * * *", timezone="Europe/Berlin")
@jobs.task
async def daily_report(job: JobContext, session: SessionDep = Injected) -> None:
    assert job.scheduled_for


# -- retries


class Rejected(Exception): ...


@jobs.task(
    max_attempts=5,
    wait=wait_exponential(multiplier=1, max=60),
    retry=retry_if_not_exception_type(Rejected),
    timeout=30,
)
async def send_email(job: JobContext, email: str) -> None:
    try:
        ...
    except ConnectionError as e:
        raise Retry(delay=60) from e
    except TimeoutError:
        raise Snooze(60)  # noqa: B904 - as users write it
    except ValueError as e:
        raise Bury("no such user") from e
    raise Retry(60 * 2**job.attempt)


# -- dead letters


@jobs.on_dead
async def alert(letter: DeadLetter) -> None:
    print("DEAD LETTER", letter.task, letter.id, letter.args, letter.error)  # noqa: T201


async def replay_everything() -> None:
    for d in await jobs.dead_letters.list(task=send_email, reason="exhausted"):
        await jobs.dead_letters.replay(d.id)
    await jobs.dead_letters.replay_all(task=send_email)
