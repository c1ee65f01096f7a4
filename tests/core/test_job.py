"""A job as it is handed out: one that was just stored is made by a short cut, and must be like any other."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from jobrunner import Job
from jobrunner.core.clock import from_us
from jobrunner.core.errors import NotRunning
from jobrunner.core.job import fresh_job
from jobrunner.core.model import Enqueued, JobRow

STORED = Enqueued(
    "id", True, "work", "mail", "scheduled", 1_000_000, 2_000_000, 0, "chain", "after"
)


class Source:
    """Answers for a job what it was asked."""

    async def result_of(self, job: Job[Any], timeout: object) -> Any:
        return job.id, timeout

    async def row_within(self, job: Job[Any], within: object, what: str) -> JobRow:
        raise AssertionError(f"nobody calls {what}")

    async def refreshed(self, job: Job[Any]) -> Job[Any]:
        return job

    def arguments_of(self, job: Job[Any], stored: str, handed: str | None = None) -> dict[str, Any]:
        raise AssertionError("nobody has read them")


def by_constructor() -> Job[None]:
    return Job(
        id="id",
        task="work",
        queue="mail",
        state="scheduled",
        run_at=from_us(2_000_000),
        created_at=from_us(1_000_000),
        attempt=0,
        created=True,
        key="key",
        tag="tag",
        chain="chain",
        after="after",
    )


def test_fresh_job_has_every_field_as_the_constructor_sets_it() -> None:
    job = fresh_job(STORED, Source(), key="key", tag="tag")
    other = by_constructor()
    for field in dataclasses.fields(Job):
        assert getattr(job, field.name) == getattr(other, field.name), field.name
    assert dataclasses.asdict(job) == dataclasses.asdict(other)
    assert repr(job) == repr(other)
    assert job == other
    assert hash(job) == hash(other)


def test_fresh_job_that_is_due_at_once_is_due_when_it_was_made() -> None:
    job = fresh_job(STORED._replace(run_at=STORED.created_at), Source())
    assert job.run_at == job.created_at == from_us(1_000_000)


async def test_fresh_job_asks_its_source_and_a_copy_has_none() -> None:
    job = fresh_job(STORED, Source())
    assert await job.result(5) == ("id", 5)
    assert await job.refresh() is job
    pickled = pickle.loads(pickle.dumps(job))  # noqa: S301 - of our own making
    for one in (copy.copy(job), copy.deepcopy(job), pickled, dataclasses.replace(job)):
        assert one == job
        assert one.run_at == job.run_at
        with pytest.raises(NotRunning):
            await one.result()


def test_fresh_job_is_frozen() -> None:
    job = fresh_job(STORED, Source())
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.state = "running"  # type: ignore[misc]
