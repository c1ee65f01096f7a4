"""Groups of dead letters in the public API: their fields, and what a filter by group does."""

from datetime import timedelta

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import DeadLetterGroup, InvalidOptions, JobDead, JobRunner, Retry
from jobrunner.core.clock import utcnow
from tests.support.engine import Heard, soon

pytestmark = pytest.mark.each_store


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    """A runner whose tasks fail in two ways, for good or at first."""
    jobs = JobRunner(store_url)

    @jobs.task(max_attempts=1)
    async def charge(number: int) -> None:
        raise LookupError(f"no order {number}")

    @jobs.task(max_attempts=2)
    async def send(number: int) -> None:
        raise Retry(3600) from ConnectionError(f"port {number} is closed")

    return jobs


async def kill(jobs: JobRunner, *numbers: int) -> list[str]:
    """Let jobs of ``charge`` die one after another; return their ids."""
    ids = []
    for number in numbers:
        job = await jobs.enqueue(jobs.tasks["charge"], number)
        with pytest.raises(JobDead):
            await job.result(timeout=15)
        ids.append(job.id)
    return ids


async def test_groups_have_counts_times_and_the_newest_dead_letter(
    jobs: JobRunner, frozen: FrozenDateTimeFactory
) -> None:
    heard = Heard(jobs)
    async with jobs.running():
        first, _ = await kill(jobs, 1, 22)
        began = (await jobs.dead_letters.get(first)).died_at
        frozen.tick(timedelta(hours=3))
        (newest,) = await kill(jobs, 333)
        for number in (1, 2):
            await jobs.enqueue(jobs.tasks["send"], number)
            await soon(heard.retries.get())
        found = await jobs.dead_letters.groups()
        letter = await jobs.dead_letters.get(newest)
        charge, send = found.items
        assert letter.group is not None
        assert charge == DeadLetterGroup(
            fingerprint=letter.group,
            task="charge",
            error_type="LookupError",
            error="no order 333",
            count=3,
            first_died_at=began,
            last_died_at=letter.died_at,
            newest_id=newest,
            deaths_per_hour=(*[0] * 21, 2, 0, 1),
            retrying=0,
            recent_deaths=1,
            deaths_before=0,
            since=letter.died_at,
        )
        assert (send.task, send.error_type, send.error) == (
            "send",
            "ConnectionError",
            "port 1 is closed",
        )
        assert (send.count, send.retrying) == (0, 2)
        assert (send.newest_id, send.first_died_at, send.last_died_at) == (None, None, None)
        assert (found.ungrouped, found.complete) == (0, True)


async def test_filter_by_group_is_obeyed_by_every_verb(jobs: JobRunner) -> None:
    async with jobs.running():
        ids = await kill(jobs, 1, 2, 3)
        (group,) = (await jobs.dead_letters.groups()).items
        letters = jobs.dead_letters
        page = await letters.list(group=group.fingerprint)
        assert [letter.id for letter in page.items] == ids[::-1]
        assert {letter.group for letter in page.items} == {group.fingerprint}
        assert await letters.count(group=group.fingerprint) == 3
        assert await letters.count(group=group.fingerprint, until=utcnow() - timedelta(1)) == 0
        none = "0" * 16
        assert await letters.count(group=none) == 0
        assert (await letters.replay_all(group=none)).replayed == 0
        assert await letters.delete_all(group=none) == 0
        plan = await letters.replay_all(group=group.fingerprint, dry_run=True)
        assert (plan.replayed, plan.conflicts) == (3, 0)
        assert (await letters.replay_all(group=group.fingerprint)).replayed == 3
        for id in ids:
            with pytest.raises(JobDead):
                await (await jobs.get(id)).result(timeout=15)
        assert await letters.delete_all(group=group.fingerprint) == 3
        with pytest.raises(InvalidOptions, match="group=7 is not a text"):
            await letters.count(group=7)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="has no filter 'group'"):
            await jobs.list(group=none)  # type: ignore[call-arg]


async def test_hook_gets_the_dead_letter_with_its_group(jobs: JobRunner) -> None:
    heard = Heard(jobs)
    async with jobs.running():
        await kill(jobs, 1)
        letter = await soon(heard.dead.get())
        (group,) = (await jobs.dead_letters.groups()).items
        assert letter.group == group.fingerprint
