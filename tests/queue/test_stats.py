"""``stats``: its windows, its buckets, and what it refuses."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import InvalidOptions, JobRunner, StatsBucket
from jobrunner.core.clock import to_us
from jobrunner.core.histogram import Histogram
from jobrunner.store.round import Round
from jobrunner.store.statistics import StatisticsRow
from tests.support.clocks import MOMENT
from tests.support.engine import store_of

pytestmark = pytest.mark.each_store


MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
NOW = MOMENT.replace(second=0)
"""The beginning of the minute in which the tests are."""


@pytest.fixture
async def jobs(store_url: str, frozen: FrozenDateTimeFactory) -> AsyncIterator[JobRunner]:
    jobs = JobRunner(store_url)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        yield jobs


async def add(
    jobs: JobRunner,
    at: datetime,
    *,
    queue: str = "default",
    task: str = "work",
    succeeded: int = 1,
    failed: int = 0,
    wait_ms: int = 10,
) -> None:
    number = succeeded + failed
    waits, runs = Histogram([wait_ms * 1_000] * number), Histogram([1_000_000] * number)
    row = StatisticsRow(to_us(at), queue, task, succeeded, failed, 0, waits, runs)
    await store_of(jobs).write(Round(0, statistics=[row]))


async def test_stats_have_a_bucket_for_each_minute_of_the_last_hour(jobs: JobRunner) -> None:
    await add(jobs, NOW, succeeded=3)
    await add(jobs, NOW - 59 * MINUTE, succeeded=9, failed=1)
    await add(jobs, NOW - HOUR, succeeded=100)
    found = await jobs.stats()
    assert (found.per, found.by) == ("minute", "time")
    assert (found.since, found.until) == (NOW - 59 * MINUTE, NOW + MINUTE)
    assert [one.start for one in found.buckets] == [NOW - n * MINUTE for n in range(59, -1, -1)]
    assert (found.buckets[0].succeeded, found.buckets[0].failed) == (9, 1)
    assert found.buckets[-1].succeeded == 3
    nothing = found.buckets[1]
    assert nothing == StatsBucket(NOW - 58 * MINUTE, None, None, 0, 0, 0, None, None, None, None)
    assert (found.total.start, found.total.succeeded, found.total.failed) == (found.since, 12, 1)


async def test_percentiles_are_those_of_all_attempts_of_a_bucket(jobs: JobRunner) -> None:
    for queue, wait_ms in (("fast", 1), ("slow", 1_000)):
        await add(jobs, NOW, queue=queue, succeeded=50, wait_ms=wait_ms)
    total = (await jobs.stats()).total
    assert total.wait_p50 is not None
    assert total.wait_p95 is not None
    assert total.wait_p50.total_seconds() == pytest.approx(0.001, rel=0.125)
    assert total.wait_p95.total_seconds() == pytest.approx(1, rel=0.125)
    assert total.run_p50 is not None
    assert total.run_p50.total_seconds() == pytest.approx(1, rel=0.125)


async def test_windows_of_two_hours_side_by_side_can_be_compared(jobs: JobRunner) -> None:
    await add(jobs, NOW - 90 * MINUTE, succeeded=7)
    await add(jobs, NOW, succeeded=5)
    hour = await jobs.stats()
    before = await jobs.stats(since=hour.since - HOUR, until=hour.since)
    assert (hour.total.succeeded, before.total.succeeded) == (5, 7)
    assert (before.until, len(before.buckets)) == (hour.since, 60)


async def test_window_is_rounded_to_whole_minutes_or_hours(jobs: JobRunner) -> None:
    since, until = NOW - timedelta(seconds=30), NOW + timedelta(seconds=1)
    minutes = await jobs.stats(since=since, until=until)
    assert (minutes.since, minutes.until) == (NOW - MINUTE, NOW + MINUTE)
    hours = await jobs.stats(per="hour", since=since, until=until)
    hour = NOW.replace(minute=0)
    assert (hours.since, hours.until) == (hour, hour + HOUR)
    day = await jobs.stats(per="hour")
    assert (day.since, day.until) == (hour - 23 * HOUR, hour + HOUR)


async def test_stats_by_queue_and_by_task_have_a_bucket_for_each(jobs: JobRunner) -> None:
    await add(jobs, NOW, queue="mail", task="send", succeeded=9, failed=1)
    await add(jobs, NOW, queue="default", task="send", succeeded=2)
    await add(jobs, NOW - MINUTE, queue="default", task="work", succeeded=4)
    queues = await jobs.stats(by="queue")
    assert [(one.queue, one.task, one.succeeded) for one in queues.buckets] == [
        ("default", None, 6),
        ("mail", None, 9),
    ]
    tasks = await jobs.stats(by="task", since=MOMENT - 10 * MINUTE)
    assert [(one.task, one.queue, one.failed) for one in tasks.buckets] == [
        ("send", None, 1),
        ("work", None, 0),
    ]
    assert tasks.total.succeeded == 15
    assert {one.start for one in tasks.buckets} == {tasks.since}
    one_queue = await jobs.stats(by="task", queue="mail")
    assert [(one.queue, one.task) for one in one_queue.buckets] == [("mail", "send")]


async def test_stats_of_a_task_take_the_task_or_its_name(jobs: JobRunner) -> None:
    await add(jobs, NOW)
    await add(jobs, NOW, task="other")
    for task in (jobs.tasks["work"], "work"):
        total = (await jobs.stats(task=task)).total
        assert (total.task, total.succeeded) == ("work", 1)


async def test_hours_have_the_minutes_that_were_not_rolled_up(jobs: JobRunner) -> None:
    await add(jobs, NOW)
    await add(jobs, NOW - 3 * HOUR)
    found = await jobs.stats(per="hour")
    assert [one.start for one in found.buckets if one.succeeded] == [
        NOW.replace(minute=0) - 3 * HOUR,
        NOW.replace(minute=0),
    ]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"per": "day"}, "per='day' is none of minute, hour"),
        ({"by": "tag"}, "by='tag' is none of time, queue, task"),
        ({"since": datetime(2026, 3, 4)}, "no time zone"),  # noqa: DTZ001 - that is tested
        ({"until": NOW - HOUR, "since": NOW}, "is not before until"),
        ({"since": NOW - timedelta(hours=7)}, 'minutes are kept for 6 hours: write per="hour"'),
        ({"per": "hour", "since": NOW - timedelta(days=31)}, "hours are kept for 30 days"),
        ({"queue": 7}, "queue=7 is not a text"),
        ({"task": "\ud800"}, "lone surrogate"),
    ],
)
async def test_stats_refuse_what_they_cannot_mean(
    jobs: JobRunner, query: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidOptions, match=words):
        await jobs.stats(**query)


async def test_stats_refuse_an_unknown_filter(jobs: JobRunner) -> None:
    with pytest.raises(TypeError, match=r"stats\(\) has no filter 'last'; it has per, by, since"):
        await jobs.stats(last=60)  # type: ignore[call-arg]


async def test_whole_retention_can_be_read(jobs: JobRunner) -> None:
    assert len((await jobs.stats(since=MOMENT - timedelta(hours=6))).buckets) == 361
    assert len((await jobs.stats(per="hour", since=MOMENT - timedelta(days=30))).buckets) == 721
