"""Arguments and results keep their values over attempts, replays and schedules."""

import uuid
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field

from jobrunner import InvalidArguments, JobRunner, ResultNotStored
from jobrunner.testing import JobTester

pytestmark = pytest.mark.each_store


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
def jobs(store_url: str) -> JobRunner:
    return JobRunner(store_url)


async def test_patch_body_arrives_as_it_was_sent(jobs: JobRunner) -> None:
    @jobs.task
    async def apply(uid: int, patch: UserPatch) -> dict[str, Any]:
        return patch.model_dump(exclude_unset=True)

    @jobs.task
    def apply_all(patches: list[UserPatch]) -> list[dict[str, Any]]:
        return [patch.model_dump(exclude_unset=True) for patch in patches]

    patches = [UserPatch(), UserPatch(name="Ann"), UserPatch(name=None)]
    async with JobTester(jobs) as t:
        for patch in patches:
            assert (await t.perform(apply, 1, patch)).result == patch.model_dump(exclude_unset=True)
        many = await t.perform(apply_all, patches)
        assert many.result == [{}, {"name": "Ann"}, {"name": None}]


async def test_result_has_set_what_the_task_has_set(jobs: JobRunner) -> None:
    @jobs.task
    async def read() -> list[UserPatch]:
        return [UserPatch(), UserPatch(email=None)]

    async with JobTester(jobs) as t:
        none, email = await (await t.perform(read)).job.result()
    assert none.model_fields_set == set()
    assert email.model_fields_set == {"email"}


async def test_id_that_a_model_has_made_is_the_same_in_every_attempt_and_replay(
    jobs: JobRunner,
) -> None:
    seen: list[Order] = []

    @jobs.task(max_attempts=2)
    async def ship(order: Order, *, fails: bool = True) -> None:
        seen.append(order)
        if fails:
            raise OSError("no courier")

    order = Order()
    async with JobTester(jobs) as t:
        dead = await t.perform(ship, order, until="dead")
        for _ in range(2):
            await t.replay(dead, until="dead")
        await t.replay(dead, args={"fails": False}, until="succeeded")
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
    async with JobTester(jobs) as t:
        for again in ({"email": "a@b.c"}, UserPatch(email="a@b.c")):
            dead = await t.perform(apply, UserPatch(name="Ann"), order)
            await t.replay(dead, args={"patch": again}, until="succeeded")
    edited = [(patch, got) for patch, got in seen if patch.email is not None]
    assert [patch.model_fields_set for patch, _ in edited] == [{"email"}] * 2
    assert [got for _, got in edited] == [order] * 2
    assert [got.model_fields_set for _, got in edited] == [{"id", "note"}] * 2


async def test_schedule_hands_its_arguments_over_as_they_were_given(jobs: JobRunner) -> None:
    @jobs.task
    async def apply(patch: UserPatch, at: datetime) -> list[str]:
        return [*patch.model_fields_set, at.isoformat()]

    async with JobTester(jobs) as t:
        await jobs.schedules.upsert(
            "nightly", apply, cron="0 3 * * *", args=[UserPatch(name=None), DOUBLED]
        )
        await t.travel(days=1)
        assert [run.result for run in t.runs()] == [["name", "2026-10-25T02:30:00+02:00"]]


async def test_doubled_hour_of_a_zone_arrives_as_argument_and_result(jobs: JobRunner) -> None:
    @jobs.task
    async def remind(at: datetime) -> datetime:
        return at.astimezone(BERLIN)

    async with JobTester(jobs) as t:
        for moment in (DOUBLED, DOUBLED.replace(fold=1)):
            back = (await t.perform(remind, moment)).result
            assert back is not None
            assert back.isoformat() == moment.isoformat()


async def test_time_in_a_zone_is_refused_as_argument_and_not_stored_as_result(
    jobs: JobRunner,
) -> None:
    @jobs.task
    async def daily(at: time) -> time:
        return at.replace(tzinfo=BERLIN)

    async with JobTester(jobs) as t:
        with pytest.raises(
            InvalidArguments, match=r"daily: at: a time has no offset in Europe/Berlin"
        ):
            await t.perform(daily, time(9, tzinfo=BERLIN))
        run = await t.perform(daily, time(9), until="succeeded")
        with pytest.raises(ResultNotStored, match="a time has no offset in Europe/Berlin"):
            await run.job.result()


async def test_jobs_that_were_stored_with_every_field_run_as_before(jobs: JobRunner) -> None:
    """Arguments of an older version name the unset fields too: they are read as set, as they were then."""

    @jobs.task
    async def apply(patch: UserPatch) -> list[str]:
        return sorted(patch.model_fields_set)

    call = apply.call(UserPatch(name="Ann"))
    call.args = '{"patch":{"name":"Ann","email":null}}'
    async with JobTester(jobs) as t:
        [job] = await jobs.enqueue_many([call])
        assert (await t.finish(job)).result == ["email", "name"]
