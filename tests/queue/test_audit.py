"""Acts inside ``audited``: recorded before they begin, counted at their end, unknown if that is unknown."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobrunner import (
    AuditEntry,
    InvalidCursor,
    InvalidOptions,
    JobNotFound,
    JobRunner,
    StoreBusy,
    StoreError,
)
from jobrunner.queue.audit import audited
from tests.support.engine import soon

ADA = "ada@example.org"
AT = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
async def jobs(tmp_db: Path) -> AsyncIterator[JobRunner]:
    """An open runner that runs no jobs."""
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def work() -> None: ...

    async with jobs.running(work=False):
        yield jobs


async def entries(jobs: JobRunner) -> list[AuditEntry]:
    """Return the whole log."""
    return (await jobs.audit.list()).items


async def counts(jobs: JobRunner) -> list[int | None]:
    """Return the counts of all entries, newest first."""
    return [entry.count for entry in await entries(jobs)]


@pytest.mark.usefixtures("frozen")
async def test_an_act_is_in_the_log_before_it_begins_and_has_a_count_after_it(
    jobs: JobRunner,
) -> None:
    async with audited(jobs.audit, ADA, "queues.pause", target="default", reason="why") as act:
        (begun,) = await entries(jobs)
        assert (begun.actor, begun.action, begun.target) == (ADA, "queues.pause", "default")
        assert (begun.filter, begun.count, begun.reason) == (None, None, "why")
        assert act.count == 1
        act.count = 7
    assert await counts(jobs) == [7]


async def test_the_filters_of_an_act_are_kept_as_json_without_those_that_were_left_out(
    jobs: JobRunner,
) -> None:
    where = {"task": jobs.tasks["work"], "queue": "ü", "since": AT, "tag": None}
    async with audited(jobs.audit, ADA, "dead_letters.replay_all", filter=where):
        pass
    async with audited(jobs.audit, ADA, "dead_letters.delete_all", filter={"tag": None}):
        pass
    everything, some = await entries(jobs)
    assert everything.filter == {}
    assert some.filter == {"task": "work", "queue": "ü", "since": "2026-11-22T08:00:00+00:00"}


async def test_an_act_that_is_refused_has_a_count_of_none(jobs: JobRunner) -> None:
    with pytest.raises(JobNotFound):
        async with audited(jobs.audit, ADA, "cancel", target="no"):
            await jobs.cancel("no")
    assert await counts(jobs) == [0]


@pytest.mark.parametrize("error", [StoreBusy("after some slices"), RuntimeError("a bug")])
async def test_an_act_whose_effect_is_unknown_stays_without_a_count(
    jobs: JobRunner, error: Exception
) -> None:
    with pytest.raises(type(error)):
        async with audited(jobs.audit, ADA, "dead_letters.replay_all", filter={}):
            raise error
    assert await counts(jobs) == [None]


async def test_an_act_that_is_cancelled_stays_without_a_count(jobs: JobRunner) -> None:
    begun = asyncio.Event()

    async def act() -> None:
        async with audited(jobs.audit, ADA, "dead_letters.replay_all", filter={}):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(act())
    await soon(begun.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await counts(jobs) == [None]


def refuse(database: Path, verb: str) -> None:
    """Make every write of one kind to the audit log fail."""
    with sqlite3.connect(database) as conn:
        conn.execute(
            f"CREATE TRIGGER refuse BEFORE {verb} ON jobrunner_audit"
            " BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    conn.close()


async def test_an_act_that_cannot_be_recorded_does_not_begin(jobs: JobRunner, tmp_db: Path) -> None:
    refuse(tmp_db, "INSERT")
    with pytest.raises(StoreError):
        async with audited(jobs.audit, ADA, "queues.pause", target="default"):
            await jobs.queues.pause("default")
    (queue,) = (await jobs.queues.list()).items
    assert not queue.paused


async def test_an_act_that_is_done_stays_done_if_its_count_cannot_be_stored(
    jobs: JobRunner, tmp_db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(tmp_db, "UPDATE")
    async with audited(jobs.audit, ADA, "queues.pause", target="default"):
        await jobs.queues.pause("default")
    with pytest.raises(JobNotFound):
        async with audited(jobs.audit, ADA, "cancel", target="no"):
            await jobs.cancel("no")
    (queue,) = (await jobs.queues.list()).items
    assert queue.paused
    assert await counts(jobs) == [None, None]
    said = [(one.levelno, one.getMessage()) for one in caplog.records if "audit" in one.message]
    assert said == [
        (logging.ERROR, "entry 1 of the audit log has no count"),
        (logging.ERROR, "entry 2 of the audit log has no count"),
    ]


@pytest.mark.parametrize(
    ("reason", "said"),
    [("r" * 501, "501 characters"), ("\ud800", "surrogate"), (5, "not a text")],
)
async def test_an_act_with_a_reason_that_cannot_be_kept_does_not_begin(
    jobs: JobRunner, reason: str, said: str
) -> None:
    with pytest.raises(InvalidOptions, match=said):
        async with audited(jobs.audit, ADA, "cancel", target="x", reason=reason):
            pytest.fail("it began")
    assert await entries(jobs) == []


async def test_a_reason_of_500_characters_and_a_name_that_is_no_utf_8_are_kept(
    jobs: JobRunner,
) -> None:
    async with audited(jobs.audit, "\udcff@shop", "cancel", target="x", reason="ü" * 500):
        pass
    (entry,) = await entries(jobs)
    assert (entry.actor, entry.reason) == ("\\udcff@shop", "ü" * 500)


async def test_the_application_s_own_calls_are_not_in_the_log(jobs: JobRunner) -> None:
    job = await jobs.enqueue(jobs.tasks["work"].options(delay=60))
    await jobs.cancel(job.id)
    await jobs.queues.pause("default")
    assert await entries(jobs) == []


async def test_the_log_is_read_in_pages_and_by_actor_and_action(jobs: JobRunner) -> None:
    for number in range(5):
        async with audited(jobs.audit, f"user-{number % 2}", "cancel", target=str(number)):
            pass
    first = await jobs.audit.list(limit=3)
    second = await jobs.audit.list(limit=3, cursor=first.next_cursor)
    assert [one.target for one in first.items + second.items] == ["4", "3", "2", "1", "0"]
    assert (first.complete, second.complete, second.next_cursor) == (True, True, None)
    assert [one.target for one in (await jobs.audit.list(actor="user-1")).items] == ["3", "1"]
    assert (await jobs.audit.list(action="queues.pause")).items == []
    assert await asyncio.to_thread(jobs.sync.audit.list) == await jobs.audit.list()


async def test_lists_refuse_what_they_cannot_search_for(jobs: JobRunner) -> None:
    with pytest.raises(InvalidCursor):
        await jobs.audit.list(cursor="x")
    with pytest.raises(InvalidOptions, match="limit"):
        await jobs.audit.list(limit=0)
    with pytest.raises(InvalidOptions, match="action='steal' is none of cancel, "):
        await jobs.audit.list(action="steal")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptions, match="actor"):
        await jobs.audit.list(actor=5)  # type: ignore[arg-type]
