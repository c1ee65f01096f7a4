"""Arguments and results keep their values over attempts, replays and schedules."""

import uuid
from datetime import datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field
from tenacity import wait_none

from jobrunner import InvalidArguments, JobDead, JobRunner, ResultNotStored
from tests.support.engine import soon

BERLIN = ZoneInfo("Europe/Berlin")
DOUBLED = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)


class UserPatch(BaseModel):
    name: str | None = None
    email: str | None = None


class Order(BaseModel):
    id: uuid.UUID = Field(default_factory=uuid.uuid4)
    note: str | None = None
    patch: UserPatch = UserPatch()


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    return JobRunner(tmp_db)


async def test_patch_body_arrives_as_it_was_sent(jobs: JobRunner) -> None:
    @jobs.task
    async def apply(uid: int, patch: UserPatch) -> dict[str, Any]:
        return patch.model_dump(exclude_unset=True)

    @jobs.task
    def apply_all(patches: list[UserPatch]) -> list[dict[str, Any]]:
        return [patch.model_dump(exclude_unset=True) for patch in patches]

    patches = [UserPatch(), UserPatch(name="Ann"), UserPatch(name=None)]
    async with jobs.running():
        for patch in patches:
            job = await apply.enqueue(1, patch)
            assert await job.result(timeout=15) == patch.model_dump(exclude_unset=True)
        many = await apply_all.enqueue(patches)
        assert await many.result(timeout=15) == [{}, {"name": "Ann"}, {"name": None}]


async def test_result_has_set_what_the_task_has_set(jobs: JobRunner) -> None:
    @jobs.task
    async def read() -> list[UserPatch]:
        return [UserPatch(), UserPatch(email=None)]

    async with jobs.running():
        none, email = await (await read.enqueue()).result(timeout=15)
    assert none.model_fields_set == set()
    assert email.model_fields_set == {"email"}


async def test_id_that_a_model_has_made_is_the_same_in_every_attempt_and_replay(
    jobs: JobRunner,
) -> None:
    seen: list[Order] = []

    @jobs.task(max_attempts=2, wait=wait_none())
    async def ship(order: Order, *, fails: bool = True) -> None:
        seen.append(order)
        if fails:
            raise OSError("no courier")

    order = Order()
    async with jobs.running():
        job = await ship.enqueue(order)
        for _ in range(2):
            with pytest.raises(JobDead):
                await job.result(timeout=15)
            job = await jobs.dead_letters.replay(job.id)
        with pytest.raises(JobDead):
            await job.result(timeout=15)
        edited = await jobs.dead_letters.replay(job.id, args={"fails": False})
        await edited.result(timeout=15)
    assert len(seen) == 7
    assert {arrived.id for arrived in seen} == {order.id}
    # What was made is stored, so it is set; what is the class's own stays so, edited or not.
    assert [arrived.model_fields_set for arrived in seen] == [{"id"}] * 7
    assert all(arrived.patch.model_fields_set == set() for arrived in seen)


async def test_edited_replay_changes_what_it_names_and_no_more(jobs: JobRunner) -> None:
    seen: list[tuple[UserPatch, Order]] = []

    @jobs.task(max_attempts=1)
    async def apply(patch: UserPatch, order: Order) -> None:
        seen.append((patch, order))
        if patch.email is None:
            raise ValueError("no address")

    order = Order(note="x")
    async with jobs.running():
        job = await apply.enqueue(UserPatch(name="Ann"), order)
        with pytest.raises(JobDead):
            await job.result(timeout=15)
        for again in ({"email": "a@b.c"}, UserPatch(email="a@b.c")):
            replayed = await jobs.dead_letters.replay(job.id, args={"patch": again})
            await replayed.result(timeout=15)
            await jobs.dead_letters.delete(job.id)
            job = await apply.enqueue(UserPatch(name="Ann"), order)
            with pytest.raises(JobDead):
                await job.result(timeout=15)
    edited = [(patch, got) for patch, got in seen if patch.email is not None]
    assert [patch.model_fields_set for patch, _ in edited] == [{"email"}] * 2
    assert [got for _, got in edited] == [order] * 2
    assert [got.model_fields_set for _, got in edited] == [{"id", "note"}] * 2


async def test_schedule_hands_its_arguments_over_as_they_were_given(jobs: JobRunner) -> None:
    @jobs.task
    async def apply(patch: UserPatch, at: datetime) -> list[str]:
        return [*patch.model_fields_set, at.isoformat()]

    async with jobs.running():
        await jobs.schedules.upsert(
            "nightly", apply, cron="0 3 * * *", args=[UserPatch(name=None), DOUBLED]
        )
        job = await jobs.schedules.run_now("nightly")
        assert await job.result(timeout=15) == ["name", "2026-10-25T02:30:00+02:00"]


async def test_doubled_hour_of_a_zone_arrives_as_argument_and_result(jobs: JobRunner) -> None:
    @jobs.task
    async def remind(at: datetime) -> datetime:
        return at.astimezone(BERLIN)

    async with jobs.running():
        for moment in (DOUBLED, DOUBLED.replace(fold=1)):
            back = await (await remind.enqueue(moment)).result(timeout=15)
            assert back.isoformat() == moment.isoformat()


async def test_time_in_a_zone_is_refused_as_argument_and_not_stored_as_result(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def daily(at: time) -> time:
        return at.replace(tzinfo=BERLIN)

    async with jobs.running():
        with pytest.raises(
            InvalidArguments, match=r"daily: at: a time has no offset in Europe/Berlin"
        ):
            await daily.enqueue(time(9, tzinfo=BERLIN))
        job = await daily.enqueue(time(9))
        with pytest.raises(ResultNotStored, match="a time has no offset in Europe/Berlin"):
            await job.result(timeout=15)


async def test_jobs_that_were_stored_with_every_field_run_as_before(jobs: JobRunner) -> None:
    """Arguments of an older version name the unset fields too: they are read as set, as they were then."""

    @jobs.task
    async def apply(patch: UserPatch) -> list[str]:
        return sorted(patch.model_fields_set)

    call = apply.call(UserPatch(name="Ann"))
    call.args = '{"patch":{"name":"Ann","email":null}}'
    async with jobs.running():
        [job] = await jobs.enqueue_many([call])
        assert await soon(job.result(timeout=15)) == ["email", "name"]
