"""Batches in an open runner: made, waited for, listed, refused and cancelled."""

import asyncio
import copy
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobrunner import (
    Batch,
    BatchEnded,
    BatchNotFound,
    InvalidBatch,
    InvalidOptions,
    JobCancelled,
    JobDead,
    KeyTaken,
    NotCommitted,
    NotRunning,
    ResultTimeout,
    WrongThread,
)
from tests.support.document_batches import Page, Shop
from tests.support.engine import soon


@pytest.fixture
def shop(tmp_db: Path) -> Shop:
    return Shop(tmp_db)


# enqueue, wait, results


@pytest.mark.usefixtures("no_read")
async def test_then_runs_after_the_last_member_and_reads_all_results(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.resize.call(n) for n in range(30)], then=shop.publish.call(7), name="doc 7"
        )
        assert (batch.state, batch.total, batch.waiting, batch.name) == ("running", 30, 30, "doc 7")
        assert {job.batch for job in batch.jobs} == {batch.id}
        assert batch.then is not None
        assert batch.then.state == "blocked"
        ended = await soon(batch.wait())
        assert (ended.state, ended.succeeded, ended.waiting) == ("succeeded", 30, 0)
        assert ended.ended_at is not None
        assert await soon(batch.then.result()) == "published 7"
        assert shop.seen == [(7, list(range(30)), "succeeded")]


async def test_results_are_in_the_order_of_the_calls(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch([shop.resize.call(n) for n in (3, 1, 2)])
        assert await soon(batch.results()) == [Page(n=3), Page(n=1), Page(n=2)]


async def test_many_results_are_read_in_parts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.queue.batches.RESULTS_PER_READ", 7)
    monkeypatch.setattr("jobrunner.queue.job_batches.RESULTS_PER_READ", 7)
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.resize.call(n) for n in range(30)], then=shop.publish.call(7)
        )
        assert [page.n for page in await soon(batch.results())] == list(range(30))
        assert batch.then is not None
        await soon(batch.then.result())
        assert shop.seen[0][1] == list(range(30))


async def test_wait_with_a_time_limit_raises_and_the_batch_goes_on(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch([shop.wait.call(1)])
        await shop.gate.arrival()
        with pytest.raises(ResultTimeout, match="0 of 1 members have succeeded; it goes on"):
            await batch.wait(timeout=timedelta(milliseconds=1))
        shop.gate.open()
        assert (await soon(batch.wait())).state == "succeeded"


async def test_dead_member_fails_the_batch_and_the_rest_goes_on(shop: Shop) -> None:
    shop.broken = {1}
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.resize.call(n) for n in range(3)],
            then=shop.nothing.call(),
            otherwise=shop.publish.call(1),
            at_end=shop.publish.call(2),
        )
        ended = await soon(batch.wait())
        assert (ended.state, ended.succeeded, ended.dead) == ("failed", 2, 1)
        with pytest.raises(JobDead, match=r"of 3 members, 1 are dead letters"):
            await batch.results()
        assert batch.otherwise is not None
        assert batch.at_end is not None
        assert await soon(batch.otherwise.result()) == "published 1"
        assert await soon(batch.at_end.result()) == "published 2"
        assert sorted(shop.seen) == [(1, [0, 2], "failed"), (2, [0, 2], "failed")]
        assert ended.then is not None
        assert ended.then.state == "blocked"


async def test_empty_batch_succeeds_at_once(shop: Shop) -> None:
    async with shop.jobs.running():
        batch: Batch[Any] = await shop.jobs.enqueue_batch([], then=shop.publish.call(7))
        assert (batch.state, batch.total) == ("succeeded", 0)
        assert batch.then is not None
        assert await soon(batch.then.result()) == "published 7"
        assert await batch.results() == []
        assert (await batch.refresh()).state == "succeeded"


async def test_batch_that_does_not_exist_is_not_found(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        for id in ("no", "é"):
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.get(id)
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.cancel(id)
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.retry(id)
            with pytest.raises(BatchNotFound):
                await shop.jobs.batches.add(id, [shop.nothing.call()])
        number: Any = 7
        with pytest.raises(TypeError, match=r"write batch\.id"):
            await shop.jobs.batches.get(number)


async def test_batches_are_listed_newest_first_by_state_and_name(shop: Shop) -> None:
    async with shop.jobs.running():
        done = await shop.jobs.enqueue_batch([shop.nothing.call()], name="a")
        await soon(done.wait())
        waits = await shop.jobs.enqueue_batch([shop.nothing.options(delay=60).call()], name="b")
        page = await shop.jobs.batches.list()
        assert [one.id for one in page.items] == [waits.id, done.id]
        for where, found in (({"state": "running"}, waits), ({"name": "a"}, done)):
            listed = await shop.jobs.batches.list(**where)  # type: ignore[arg-type]
            assert [one.id for one in listed.items] == [found.id]
        first = await shop.jobs.batches.list(limit=1)
        rest = await shop.jobs.batches.list(limit=1, cursor=first.next_cursor)
        assert [one.id for one in (*first.items, *rest.items)] == [waits.id, done.id]
        state: Any = "dead"
        with pytest.raises(InvalidOptions, match="none of running, succeeded, failed, cancelled"):
            await shop.jobs.batches.list(state=state)


async def test_jobs_and_dead_letters_are_listed_by_batch(shop: Shop) -> None:
    shop.broken = {1}
    async with shop.jobs.running():
        await soon((await shop.jobs.enqueue(shop.nothing)).result())
        batch = await shop.jobs.enqueue_batch([shop.resize.call(n) for n in range(3)])
        await soon(batch.wait())
        listed = (await shop.jobs.list(batch=batch.id)).items
        assert [job.id for job in listed] == [batch.jobs[2].id, batch.jobs[0].id]
        (letter,) = (await shop.jobs.dead_letters.list(batch=batch.id)).items
        assert (letter.id, letter.batch) == (batch.jobs[1].id, batch.id)
        (dead,) = (await shop.jobs.list(batch=batch.id, state="dead")).items
        assert (dead.id, dead.batch) == (letter.id, batch.id)


# what is refused


@pytest.mark.parametrize("verb", ["enqueue_many", "enqueue_chain"])
async def test_call_that_waits_for_another_belongs_into_a_batch(shop: Shop, verb: str) -> None:
    async with shop.jobs.running(work=False):
        page = shop.resize.call(1)
        for call in (shop.ship.call(page.result), shop.nothing.call().after(page)):
            with pytest.raises(InvalidBatch, match=r"`await queue\.enqueue_batch\(\[first, sec"):
                await getattr(shop.jobs, verb)([page, call])
        with pytest.raises(InvalidBatch):
            await shop.jobs.enqueue(shop.ship, page.result)
        assert (await shop.jobs.list()).items == []


async def test_batch_of_what_is_no_list_of_calls_is_refused(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        anything: Any = shop.nothing.call()
        with pytest.raises(InvalidOptions, match="takes a list of calls"):
            await shop.jobs.enqueue_batch(anything)
        with pytest.raises(InvalidOptions, match=r"is not a call: write enqueue_batch\(\["):
            await shop.jobs.enqueue_batch([shop.nothing])  # type: ignore[arg-type]
        with pytest.raises(InvalidOptions, match="1 to 200 characters"):
            await shop.jobs.enqueue_batch([], name="")


@pytest.mark.parametrize("why", ["not in the batch", "wait for each other"])
async def test_fault_34_cycle_or_unknown_reference_is_refused_and_stores_nothing(
    shop: Shop, why: str
) -> None:
    async with shop.jobs.running(work=False):
        page, other = shop.resize.call(1), shop.nothing.call()
        calls: list[Any] = [shop.ship.call(page.result)]
        if why == "wait for each other":
            calls = [page.after(other), other.after(page)]
        with pytest.raises(InvalidBatch, match=why):
            await shop.jobs.enqueue_batch(calls, then=shop.nothing.call())
        assert (await shop.jobs.batches.list()).items == []
        assert (await shop.jobs.list()).items == []


async def test_key_of_an_unfinished_job_takes_the_place_of_a_member(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        task = shop.resize.options(key="page-1", delay=60)
        held = await shop.jobs.enqueue(task, 1)
        batch = await shop.jobs.enqueue_batch([task.call(1), shop.resize.call(2)])
        assert [job.created for job in batch.jobs] == [False, True]
        assert (batch.jobs[0].id, batch.jobs[0].batch) == (held.id, None)
        assert (batch.total, (await batch.refresh()).total) == (1, 1)
        page = task.call(1)
        with pytest.raises(KeyTaken):
            await shop.jobs.enqueue_batch([page, shop.ship.call(page.result)])
        assert len((await shop.jobs.batches.list()).items) == 1


# cancel


async def test_cancelled_batch_stops_its_members(shop: Shop) -> None:
    async with shop.jobs.running():
        batch = await shop.jobs.enqueue_batch(
            [shop.wait.call(1), *(shop.resize.options(delay=60).call(n) for n in range(700))],
            then=shop.nothing.call(),
            at_end=shop.publish.call(1),
        )
        await shop.gate.arrival()
        assert await batch.cancel() is True
        assert (await batch.refresh()).cancel_requested
        assert await batch.cancel() is False
        with pytest.raises(BatchEnded):
            await batch.add([shop.nothing.call()])
        ended = await soon(batch.wait())
        assert (ended.state, ended.cancelled) == ("cancelled", 701)
        assert await batch.cancel() is False
        with pytest.raises(JobCancelled, match="has been cancelled"):
            await batch.results()
        assert batch.at_end is not None
        assert await soon(batch.at_end.result()) == "published 1"
        assert ended.then is not None
        assert ended.then.state == "cancelled"


# sync, sessions, transactions


async def test_blocking_form_of_enqueue_batch(shop: Shop) -> None:
    async with shop.jobs.running():

        def in_thread() -> list[Page]:
            batch = shop.jobs.sync.enqueue_batch(
                [shop.resize.call(n) for n in range(3)], then=shop.publish.call(7), name="x"
            )
            assert shop.jobs.sync.batches.get(batch.id).name == "x"
            assert [one.id for one in shop.jobs.sync.batches.list().items] == [batch.id]
            results = shop.jobs.sync.run(batch.results())
            assert shop.jobs.sync.batches.cancel(batch.id) is False
            assert shop.jobs.sync.batches.retry(batch.id).replayed == 0
            return results

        assert await soon(asyncio.to_thread(in_thread)) == [Page(n=n) for n in range(3)]
        with pytest.raises(WrongThread):
            shop.jobs.sync.enqueue_batch([])


async def test_copied_batch_has_no_runner(shop: Shop) -> None:
    async with shop.jobs.running(work=False):
        batch = await shop.jobs.enqueue_batch([shop.nothing.call()])
        again = copy.copy(batch)
        assert again == batch
        assert len({again, batch}) == 1
        with pytest.raises(NotRunning):
            await again.wait()


async def test_fault_33_rollback_of_a_session_leaves_no_row_of_the_batch(
    shop: Shop, tmp_db: Path
) -> None:
    async with shop.jobs.running(work=False):
        with closing(
            sqlite3.connect(tmp_db, isolation_level=None, check_same_thread=False)
        ) as conn:
            page = shop.resize.options(session=conn).call(1)
            then = shop.nothing.options(session=conn).call()
            ship = shop.ship.options(session=conn).call(page.result)

            def in_thread(end: str) -> Batch[Any]:
                conn.execute("BEGIN")
                batch = shop.jobs.sync.enqueue_batch([page, ship], then=then)
                assert [job.state for job in batch.jobs] == ["queued", "blocked"]
                conn.execute(end)
                return batch

            gone = await asyncio.to_thread(in_thread, "ROLLBACK")
            counts = (
                "SELECT (SELECT count(*) FROM jobrunner_jobs), (SELECT count(*) FROM jobrunner_batches),"
                " (SELECT count(*) FROM jobrunner_edges)"
            )
            assert conn.execute(counts).fetchone() == (0, 0, 0)
            with pytest.raises(NotCommitted, match=r"`await session\.commit\(\)`"):
                await gone.wait(1)
            there = await asyncio.to_thread(in_thread, "COMMIT")
            assert (await there.refresh()).total == 2
        with pytest.raises(InvalidOptions, match="enqueue_batch"):
            await shop.jobs.enqueue_batch([page, shop.nothing.call()])
