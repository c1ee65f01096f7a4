"""What a task is handed and what it returns is what was sent: over attempts, replays, schedules and results."""

from datetime import datetime, time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from jobrunner import InvalidArguments, JobRunner, ResultNotStored

BERLIN = ZoneInfo("Europe/Berlin")
DOUBLED = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)


@pytest.fixture
def jobs(tmp_db: Path) -> JobRunner:
    return JobRunner(tmp_db)


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
