"""The tester's clock: what becomes due on the way runs in order, and freezegun and time-machine agree with it."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import freezegun
import pytest
import time_machine
from fastapi import FastAPI
from fastapi.testclient import TestClient

from jobrunner import JobContext, JobRunner
from jobrunner.core.clock import utcnow
from jobrunner.testing import JobTester, SyncJobTester
from tests.testing.site import Outbox, remind, ticks, weekly_digest

BERLIN = ZoneInfo("Europe/Berlin")
MOMENT = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)


def frozen(moment: datetime = MOMENT) -> Any:
    """Freeze the time with freezegun."""
    return freezegun.freeze_time(moment, real_asyncio=True)


def ticking(moment: datetime = MOMENT) -> Any:
    """Freeze the time with freezegun, and let it go on."""
    return freezegun.freeze_time(moment, real_asyncio=True, tick=True)


def machine(moment: datetime = MOMENT) -> Any:
    """Travel with time-machine, where the time stands still."""
    return time_machine.travel(moment, tick=False)


def machine_ticking(moment: datetime = MOMENT) -> Any:
    """Travel with time-machine, where the time goes on."""
    return time_machine.travel(moment)


FREEZERS = [frozen, ticking, machine, machine_ticking]
Freezer = Callable[..., AbstractContextManager[Any]]


async def test_clock_stands_still_until_the_test_moves_it(app: FastAPI) -> None:
    async with JobTester(app) as t:
        began = t.now
        await remind.options(delay=1).enqueue("ada")
        await t.run_until_idle()
        assert t.now == began
        await t.travel(weeks=1, days=1, hours=1, minutes=1, seconds=1.5)
        assert t.now - began == timedelta(days=8, hours=1, minutes=1, seconds=1.5)
        assert utcnow() == t.now
    assert utcnow() < began + timedelta(days=1)


async def test_travel_runs_what_becomes_due_in_order_and_at_its_time(jobs: JobRunner) -> None:
    done: list[tuple[str, datetime]] = []

    @jobs.task
    async def work(name: str) -> None:
        done.append((name, utcnow()))
        if name == "third":
            await work.options(delay=10).enqueue("fourth")

    async with JobTester(jobs) as t:
        began = t.now
        for name, delay in (("third", 30), ("first", 10), ("second", 20), ("beyond", 41)):
            await work.options(delay=delay).enqueue(name)
        await t.travel(seconds=40)
    assert [(name, at - began) for name, at in done] == [
        (name, timedelta(seconds=seconds))
        for name, seconds in (("first", 10), ("second", 20), ("third", 30), ("fourth", 40))
    ]


async def test_travel_runs_what_was_due_before_it(app: FastAPI, outbox: Outbox) -> None:
    async with JobTester(app) as t:
        await remind.enqueue("ada")
        await t.travel()
        assert len(outbox.sent) == 1


async def test_job_expires_on_the_way(jobs: JobRunner) -> None:
    @jobs.task
    async def work() -> None: ...

    async with JobTester(jobs) as t:
        await jobs.queues.pause("default")
        await jobs.enqueue(work.options(expires=60))
        await t.travel(seconds=61)
        assert [job.state for job in t.list()] == ["expired"]


async def test_travel_does_not_go_back(app: FastAPI) -> None:
    async with JobTester(app) as t:
        with pytest.raises(ValueError, match="moves the clock forward"):
            await t.travel(hours=-1)
        with pytest.raises(ValueError, match="is in the past: the clock shows"):
            await t.travel_to("2020-01-01")
        with pytest.raises(ValueError, match='zone="Europe/Berlin"'):
            await t.travel_to(datetime(2100, 1, 1))  # noqa: DTZ001 - naive on purpose
        with pytest.raises(ValueError, match="Invalid isoformat"):
            await t.travel_to("tomorrow")


@pytest.mark.parametrize(
    ("moment", "zone", "expected"),
    [
        ("2099-11-30 08:00", "Europe/Berlin", "2099-11-30T07:00:00+00:00"),
        ("2099-07-30 08:00", "Europe/Berlin", "2099-07-30T06:00:00+00:00"),
        ("2099-11-30 08:00", None, "2099-11-30T08:00:00+00:00"),
        ("2099-11-30T08:00+05:00", "Europe/Berlin", "2099-11-30T03:00:00+00:00"),
        (datetime(2099, 11, 30, 8, tzinfo=BERLIN), None, "2099-11-30T07:00:00+00:00"),
        (datetime(2099, 11, 30, 8), "Europe/Berlin", "2099-11-30T07:00:00+00:00"),  # noqa: DTZ001
    ],
)
async def test_travel_to_a_moment_in_a_zone(
    moment: datetime | str, zone: str | None, expected: str
) -> None:
    async with JobTester(JobRunner("sqlite:///x.db")) as t:
        await t.travel_to(moment, zone=zone)
        assert t.now.isoformat() == expected


# -- schedules ---------------------------------------------------------------------------------------


async def test_a_month_of_cron_in_berlin_over_the_change_of_the_clocks(app: FastAPI) -> None:
    with machine(datetime(2026, 3, 9, 12, tzinfo=UTC)):
        async with JobTester(app) as t:
            following = t.schedules.next(weekly_digest)
            assert following is not None
            assert following.next_at == datetime(2026, 3, 16, 8, tzinfo=BERLIN)
            await t.travel_to("2026-04-09 12:00", zone="Europe/Berlin")
            runs = t.runs(weekly_digest)
    at = [run.scheduled_for for run in runs]
    # At eight in Berlin, on both sides of 29 March: the hour in UTC changes.
    assert [one.astimezone(BERLIN).isoformat(" ") for one in at if one] == [
        "2026-03-16 08:00:00+01:00",
        "2026-03-23 08:00:00+01:00",
        "2026-03-30 08:00:00+02:00",
        "2026-04-06 08:00:00+02:00",
    ]
    assert [one.astimezone(UTC).hour for one in at if one] == [7, 7, 6, 6]
    assert ticks == at
    assert all(run.job.history[0].started_at == run.scheduled_for for run in runs)


async def test_a_tick_in_the_hour_that_is_left_out_and_in_the_one_that_comes_twice() -> None:
    jobs = JobRunner("sqlite:///never.db", timezone="Europe/Berlin")

    @jobs.cron("30 2 * * *")
    async def nightly(job: JobContext) -> None: ...

    for moment, days in (("2026-03-28", 2), ("2026-10-24", 2)):
        with machine(datetime.fromisoformat(moment).replace(hour=12, tzinfo=UTC)):
            async with JobTester(jobs) as t:
                await t.travel(days=days)
                assert len(t.runs(nightly)) == days


async def test_hourly_schedule_ticks_720_times_in_a_month(jobs: JobRunner) -> None:
    @jobs.cron("0 * * * *")
    async def hourly(job: JobContext) -> None: ...

    async with JobTester(jobs) as t:
        await t.travel(hours=720)
        runs = t.runs(hourly)
    assert len(runs) == 720
    at = [run.scheduled_for for run in runs]
    assert at == sorted(at, key=str)
    assert {run.state for run in runs} == {"succeeded"}


async def test_schedules_are_there_before_anything_runs(app: FastAPI, jobs: JobRunner) -> None:
    async with JobTester(app) as t:
        assert len(t.schedules) == 1
        assert t.schedules[0].task == "weekly_digest"
        assert t.schedules.next() == t.schedules[0] == t.schedules[:1][0]
        assert t.schedules.next(remind) is None
        assert "weekly_digest" in repr(t.schedules)
    async with JobTester(jobs) as t:
        assert t.schedules.next() is None


async def test_schedule_that_is_stored_at_run_time_ticks_too(jobs: JobRunner) -> None:
    @jobs.task
    async def report(name: str) -> str:
        return name

    async with JobTester(jobs) as t:
        await jobs.schedules.upsert("report:acme", report, every=60, args=["acme"])
        await t.travel(minutes=3)
        assert [run.result for run in t.runs(report)] == ["acme"] * 3


# -- freezegun and time-machine -------------------------------------------------------------------


@pytest.mark.parametrize("freezer", FREEZERS)
async def test_both_clocks_agree_inside_a_task(jobs: JobRunner, freezer: Freezer) -> None:
    seen: list[tuple[datetime, datetime, float]] = []

    @jobs.task
    async def look() -> None:
        seen.append((utcnow(), dt.datetime.now(UTC), time.time()))  # noqa: TID251

    @jobs.task
    def look_in_a_thread() -> None:
        seen.append((utcnow(), dt.datetime.now(UTC), utcnow().timestamp()))  # noqa: TID251

    with freezer():
        async with JobTester(jobs) as t:
            assert abs(t.now - MOMENT) < timedelta(seconds=30)
            await look.options(delay=3600).enqueue()
            await look_in_a_thread.options(delay=7200).enqueue()
            await t.travel(hours=24)
            assert abs(dt.datetime.now(UTC) - t.now) < timedelta(seconds=30)  # noqa: TID251
            assert timedelta() <= t.now - MOMENT - timedelta(hours=24) < timedelta(seconds=30)
    for (ours, theirs, seconds), hours in zip(seen, (1, 2), strict=True):
        assert timedelta() <= ours - MOMENT - timedelta(hours=hours) < timedelta(seconds=30)
        assert abs(theirs - ours) < timedelta(seconds=30)
        assert abs(seconds - ours.timestamp()) < 30


@pytest.mark.parametrize("freezer", [frozen, machine])
async def test_both_clocks_are_the_same_to_the_microsecond_if_they_stand_still(
    jobs: JobRunner, freezer: Freezer
) -> None:
    @jobs.task
    async def look() -> bool:
        return utcnow() == dt.datetime.now(UTC) == MOMENT + timedelta(hours=1, microseconds=1)  # noqa: TID251

    with freezer():
        async with JobTester(jobs) as t:
            run = await t.perform(look.options(delay=timedelta(hours=1, microseconds=1)))
            assert run.result is True


@pytest.mark.parametrize("freezer", FREEZERS)
async def test_clock_that_the_test_moves_by_the_freezer_is_the_testers(
    app: FastAPI, outbox: Outbox, freezer: Freezer
) -> None:
    with freezer() as clock:
        async with JobTester(app) as t:
            await remind.options(delay=3600).enqueue("ada")
            await t.run_until_idle()
            assert outbox.sent == []
            move: Any = getattr(clock, "shift", None) or clock.tick
            move(timedelta(hours=1, seconds=30))  # freezegun's own tick() forgets what has passed
            await t.run_until_idle()
            assert len(outbox.sent) == 1


@pytest.mark.parametrize("freezer", FREEZERS)
async def test_freezer_inside_the_tester_rules_as_long_as_it_lasts(
    app: FastAPI, freezer: Freezer
) -> None:
    async with JobTester(app) as t:
        began = t.now
        with freezer():
            assert abs(t.now - MOMENT) < timedelta(seconds=30)
        assert t.now == began


@pytest.mark.parametrize("freezer", FREEZERS)
def test_blocking_tester_agrees_too(app: FastAPI, outbox: Outbox, freezer: Freezer) -> None:
    with freezer(), SyncJobTester(app) as t, TestClient(app) as client:
        client.post("/subscribers?email=ada")
        t.travel(hours=25)
        assert [subject for _, subject in outbox.sent] == ["Welcome!", "Are you still there?"]
        assert timedelta() <= t.now - MOMENT - timedelta(hours=25) < timedelta(seconds=30)


@pytest.fixture(autouse=True)
def no_freezer_is_left() -> Iterator[None]:
    """Check that each test has ended its freezer."""
    yield
    assert not freezegun.api.freeze_factories
    assert not time_machine.traveller_stack


# -- other runners of the process -------------------------------------------------------------------


async def test_runner_that_was_open_before_keeps_the_clock_of_the_system(
    jobs: JobRunner, tmp_path: Path
) -> None:
    other = JobRunner(tmp_path / "other.db")

    @other.task
    async def look() -> datetime:
        return utcnow()

    @other.task
    def look_in_a_thread() -> datetime:
        return utcnow()

    @other.cron("* * * * *")
    async def tick(job: JobContext) -> None: ...

    async with other.running(), JobTester(jobs) as t:
        await t.travel(weeks=26)
        for task in (look, look_in_a_thread):
            # Due at once by its own clock, and run by its own worker.
            job = await other.enqueue(task.options(delay=0.01))
            assert t.now - await job.result(timeout=20) > timedelta(weeks=25)
        (schedule,) = (await other.schedules.list()).items
        assert schedule.next_at is not None
        assert t.now - schedule.next_at > timedelta(weeks=25)
        assert len((await other.list(task=tick)).items) <= 1
