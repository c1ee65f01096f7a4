"""3. class-based service layer; tasks as thin functions that get a service by Depends."""

from typing import Annotated

from fastapi import APIRouter, Depends
from jobrunner import Injected, JobContext, TaskRouter
from jobrunner.fastapi import Queue


class Mailer:
    async def send(self, to: str, message_id: str) -> None: ...


def get_mailer() -> Mailer:
    return Mailer()


MailerDep = Annotated[Mailer, Depends(get_mailer)]
tasks = TaskRouter(queue="mail")


class InvoiceService:
    def __init__(self, queue: Queue, mailer: MailerDep) -> None:
        self.queue, self.mailer = queue, mailer

    async def bill(self, customer: int) -> str:
        return (await self.queue.enqueue(send_invoice, customer)).id


@tasks.task
async def send_invoice(job: JobContext, customer: int, mailer: MailerDep = Injected) -> None:
    await mailer.send("x", job.id)


routes = APIRouter()


@routes.post("/bill/{customer}")
async def bill(customer: int, service: Annotated[InvoiceService, Depends(InvoiceService)]) -> str:
    return await service.bill(customer)


@tasks.task
async def rebill(
    customer: int, service: Annotated[InvoiceService, Depends(InvoiceService)] = Injected
) -> None:
    await service.bill(customer)  # Queue must resolve INSIDE a task too
