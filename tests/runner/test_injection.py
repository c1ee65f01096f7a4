"""One service class in routes and in tasks, and the overrides of the application that the runner is open on."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx2
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from jobrunner import Injected, JobQueue, JobRunner, TaskRouter
from jobrunner.fastapi import Queue

tasks = TaskRouter()
sent: list[str] = []


class Mailer:
    name = "real"

    async def send(self, to: str) -> None:
        sent.append(f"{self.name} to {to}")


class FakeMailer(Mailer):
    name = "fake"


async def get_mailer() -> AsyncIterator[Mailer]:
    yield Mailer()
    sent.append("closed")


MailerDep = Annotated[Mailer, Depends(get_mailer)]


class Welcome:
    def __init__(self, queue: Queue, mailer: MailerDep) -> None:
        self.queue = queue
        self.mailer = mailer

    async def greet(self, who: str, again: int) -> str:
        await self.mailer.send(who)
        return (await self.queue.enqueue(remind, who, again - 1)).id if again else ""


Service = Annotated[Welcome, Depends(Welcome)]


@tasks.task
async def remind(who: str, again: int, service: Service = Injected) -> str:
    return await service.greet(who, again)


def an_app(jobs: JobRunner) -> FastAPI:
    app = FastAPI(lifespan=jobs.lifespan)

    @app.post("/greet")
    async def greet(who: str, service: Service) -> str:
        return await service.greet(who, 2)

    return app


async def test_service_enqueues_in_a_route_and_in_the_task_that_follows(jobs: JobRunner) -> None:
    jobs.include(tasks)
    app = an_app(jobs)
    sent.clear()
    async with (
        jobs.running(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client,
    ):
        first = (await client.post("/greet", params={"who": "ada"})).json()
        second = await (await jobs.get(first, remind)).result(timeout=15)
        app.dependency_overrides[get_mailer] = FakeMailer
        assert await (await remind.enqueue("bob", 0)).result(timeout=15) == ""
        assert await (await jobs.get(second, remind)).result(timeout=15) == ""
    assert sent.count("closed") >= 2
    assert "real to ada" in sent
    assert "fake to bob" in sent


def test_override_of_the_app_holds_in_the_tasks_of_its_lifespan(jobs: JobRunner) -> None:
    jobs.include(tasks)
    app = an_app(jobs)
    app.dependency_overrides[get_mailer] = FakeMailer
    sent.clear()
    with TestClient(app) as client:
        id = client.post("/greet", params={"who": "ada"}).json()
        assert client.portal is not None

        async def follow() -> None:
            second = await (await jobs.get(id, remind)).result(timeout=15)
            await (await jobs.get(second, remind)).result(timeout=15)

        client.portal.call(follow)
    assert sent == ["fake to ada"] * 3


async def test_work_without_an_app_has_no_overrides_and_its_own_queue(jobs: JobRunner) -> None:
    @jobs.task
    async def work(queue: Annotated[JobQueue, Depends(jobs.queue)] = Injected) -> bool:
        return queue is await jobs.queue()

    async with jobs.running():
        assert await (await jobs.enqueue(work)).result(timeout=15) is True
