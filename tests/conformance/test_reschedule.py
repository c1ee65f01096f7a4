"""Waiting jobs that are made due at another time."""

import pytest

from jobrunner.core.errors import InvalidOptions, JobNotFound, JobNotWaiting
from jobrunner.core.ids import new_id
from jobrunner.core.model import chained
from jobrunner.store.protocol import Store
from tests.conformance.rigs import Rig
from tests.conformance.test_queues import make_suspect
from tests.support.factories import (
    EXPIRY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    STARTS,
    Start,
    bring,
    claim,
    enqueue,
    new,
    row_of,
)

WAITING: tuple[Start, ...] = ("scheduled", "scheduled again", "queued", "queued again")


@pytest.mark.parametrize("start", WAITING)
@pytest.mark.parametrize("run_at", [NOW + 2 * MINUTE, NOW + SECOND])
async def test_reschedule_of_a_waiting_job_moves_it_and_changes_nothing_else(
    store: Store, start: Start, run_at: int
) -> None:
    row = (await bring(store, start)).row
    moved = await store.jobs.reschedule(row.id, run_at=run_at, now=NOW)
    assert moved == row._replace(state="scheduled", run_at=run_at)
    assert await row_of(store, row.id) == moved
    assert not await claim(store, now=run_at - 1)
    (attempt,) = await claim(store, now=run_at)
    assert (attempt.id, attempt.attempt) == (row.id, row.attempt + 1)


@pytest.mark.parametrize("start", WAITING)
@pytest.mark.parametrize("run_at", [NOW, NOW - HOUR])
async def test_reschedule_to_now_or_earlier_makes_it_due_now(
    store: Store, start: Start, run_at: int
) -> None:
    row = (await bring(store, start)).row
    moved = await store.jobs.reschedule(row.id, run_at=run_at, now=NOW)
    assert moved == row._replace(state="queued", run_at=NOW, retrying=False)
    (attempt,) = await claim(store)
    assert attempt.id == row.id


async def test_reschedule_to_now_overtakes_no_job_that_is_due(store: Store) -> None:
    late = new(run_at=NOW + HOUR)
    await enqueue(store, late, new(created_at=NOW - SECOND), new())
    await store.jobs.reschedule(late.id, run_at=NOW - HOUR, now=NOW + SECOND)
    claimed = await claim(store, now=NOW + SECOND)
    assert [attempt.id for attempt in claimed][-1] == late.id


async def test_reschedule_to_now_leaves_a_due_job_its_place(store: Store) -> None:
    first, second = new(), new(created_at=NOW + SECOND)
    await enqueue(store, first, second, now=NOW + SECOND)
    before = await row_of(store, first.id)
    assert await store.jobs.reschedule(first.id, run_at=NOW + MINUTE, now=NOW + MINUTE) == before
    assert [one.id for one in await claim(store, now=NOW + MINUTE)] == [first.id, second.id]


@pytest.mark.parametrize("start", [start for start in STARTS if start not in WAITING])
@pytest.mark.parametrize("run_at", [NOW, NOW + MINUTE])
async def test_reschedule_of_any_other_job_is_refused_and_changes_nothing(
    store: Store, start: Start, run_at: int
) -> None:
    row = (await bring(store, start)).row
    with pytest.raises(JobNotWaiting, match=f"job {row.id} cannot be rescheduled: "):
        await store.jobs.reschedule(row.id, run_at=run_at, now=NOW)
    assert await row_of(store, row.id) == row


async def test_reschedule_says_what_to_do_instead(store: Store) -> None:
    letter = (await bring(store, "dead")).row
    with pytest.raises(JobNotWaiting, match=r"await queue\.dead_letters\.replay\(id\)"):
        await store.jobs.reschedule(letter.id, run_at=NOW, now=NOW)
    first, second = chained([new(), new()])
    await enqueue(store, first, second)
    with pytest.raises(JobNotWaiting, match=f"it waits for job {first.id}"):
        await store.jobs.reschedule(second.id, run_at=NOW, now=NOW)


async def test_reschedule_of_an_unknown_id_is_refused(store: Store) -> None:
    with pytest.raises(JobNotFound):
        await store.jobs.reschedule(new_id(NOW), run_at=NOW, now=NOW)


@pytest.mark.parametrize("run_at", [EXPIRY, EXPIRY + 1])
async def test_reschedule_past_the_expiry_is_refused_and_changes_nothing(
    store: Store, run_at: int
) -> None:
    row = (await bring(store, "scheduled")).row
    with pytest.raises(InvalidOptions, match="would expire before it is due"):
        await store.jobs.reschedule(row.id, run_at=run_at, now=NOW)
    assert await row_of(store, row.id) == row
    await store.jobs.reschedule(row.id, run_at=EXPIRY - 1, now=NOW)


async def test_reschedule_keeps_a_job_of_a_chain_in_front_of_those_behind_it(
    store: Store,
) -> None:
    first, second = chained([new(), new()])
    await enqueue(store, first, second)
    await store.jobs.reschedule(first.id, run_at=NOW + HOUR, now=NOW)
    assert not await claim(store)
    assert (await row_of(store, second.id)).state == "blocked"
    assert [one.id for one in await claim(store, now=NOW + HOUR)] == [first.id]


async def test_reschedule_keeps_the_key(store: Store) -> None:
    job = new(key="k")
    await enqueue(store, job)
    await store.jobs.reschedule(job.id, run_at=NOW + HOUR, now=NOW)
    (again,) = await enqueue(store, new(key="k"))
    assert (again.id, again.created, again.state) == (job.id, False, "scheduled")


async def test_reschedule_leaves_a_suspect_a_suspect(rig: Rig) -> None:
    id = await make_suspect(rig)
    await rig.store.jobs.reschedule(id, run_at=NOW + HOUR, now=NOW)
    assert not await claim(rig.store, now=NOW + HOUR, suspects=False)
    (attempt,) = await claim(rig.store, now=NOW + HOUR)
    assert (attempt.id, bool(attempt.suspect)) == (id, True)
