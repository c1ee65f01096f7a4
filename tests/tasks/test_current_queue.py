"""The queue that a bare ``task.enqueue(...)`` uses."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from jobrunner.core.errors import AmbiguousRunner, InvalidArguments, NotRunning
from jobrunner.core.job import Job
from jobrunner.tasks import current_queue
from jobrunner.tasks.call import Call
from jobrunner.tasks.router import TaskRouter

R = TypeVar("R")
MOMENT = datetime(2026, 11, 22, 8, tzinfo=UTC)

router = TaskRouter()


@router.task
async def send(email: str) -> int:
    return len(email)


class Shelf:
    """An Enqueuer that keeps the calls it is handed."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def enqueue_call(self, call: Call[R]) -> Job[R]:
        self.calls.append(call.args)
        return Job("id-1", call.spec.name, "default", "queued", MOMENT, MOMENT, 0, created=True)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    before = current_queue.opened.copy()
    current_queue.opened.clear()
    yield
    current_queue.opened[:] = before


async def test_enqueue_with_no_open_runner_says_which_line_opens_one() -> None:
    with pytest.raises(
        NotRunning, match=r"^send\.enqueue\(\.\.\.\).*lifespan=jobs\.lifespan"
    ) as told:
        await send.enqueue("a")
    assert "with TestClient(app) as client" in str(told.value)


async def test_enqueue_with_one_open_runner_goes_there(shelf: Shelf) -> None:
    current_queue.opened.append(shelf)
    job: Job[int] = await send.enqueue("a")
    assert job.id == "id-1"
    assert shelf.calls == ['{"email":"a"}']


async def test_enqueue_with_several_open_runners_asks_to_name_one(shelf: Shelf) -> None:
    current_queue.opened.extend([shelf, Shelf()])
    with pytest.raises(AmbiguousRunner, match=r"await jobs\.enqueue\(task, \.\.\.\)"):
        await send.enqueue("a")
    assert not shelf.calls


async def test_enqueue_within_an_attempt_goes_to_its_runner(shelf: Shelf) -> None:
    current_queue.opened.extend([Shelf(), Shelf()])
    token = current_queue.running.set(shelf)
    try:
        await send.enqueue("a")
    finally:
        current_queue.running.reset(token)
    assert shelf.calls == ['{"email":"a"}']


async def test_enqueue_in_another_context_does_not_see_the_attempts_runner(shelf: Shelf) -> None:
    async def attempt() -> None:
        current_queue.running.set(shelf)
        await send.enqueue("a")

    await asyncio.create_task(attempt())
    with pytest.raises(NotRunning):
        await send.enqueue("b")
    assert shelf.calls == ['{"email":"a"}']


async def test_enqueue_with_wrong_arguments_is_refused_without_a_runner_too() -> None:
    with pytest.raises(InvalidArguments):
        await send.enqueue(5)  # type: ignore[arg-type]
