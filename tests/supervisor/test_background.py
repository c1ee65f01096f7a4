"""Background tasks of an attempt: stored with its success, in the transaction that settles it, or not at all."""

from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends

from jobrunner import (
    Injected,
    JobRunner,
)
from jobrunner.fastapi import Background, DurableBackgroundTasks
from tests.engine import Heard, soon


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    return JobRunner(tmp_db)


class Orders:
    """A service as routes and tasks share it."""

    def __init__(self, background: Background) -> None:
        self.background = background


Service = Annotated[Orders, Depends(Orders)]


async def test_tasks_of_an_attempt_are_one_chain_stored_with_its_success(jobs: JobRunner) -> None:
    done: list[str] = []

    @jobs.task
    async def note(what: str) -> None:
        done.append(what)

    @jobs.task
    async def order(
        background: Background = Injected,
        service: Service = Injected,
        own: DurableBackgroundTasks = Depends(jobs.background),
    ) -> None:
        background.add_task(note, "one")
        service.background.add_task(note, "two")
        background.add_task(note.options(tag="last"), "three")
        assert own is service.background is background
        assert (await jobs.list(task=note)).items == []

    heard = Heard(jobs)
    async with jobs.running():
        first = await order.enqueue()
        names = [(await soon(heard.succeeded.get())).task for _ in range(4)]
        assert [name.rpartition(".")[2] for name in names] == ["order", "note", "note", "note"]
        rows = list(reversed((await jobs.list(task=note)).items))
    assert done == ["one", "two", "three"]
    assert [row.chain for row in rows] == [rows[0].id] * 3
    assert [row.after for row in rows] == [None, rows[0].id, rows[1].id]
    assert rows[2].tag == "last"
    assert first.id not in {row.id for row in rows}
