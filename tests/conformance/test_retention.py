"""Retention: what is past its time goes, slice by slice, with its attempts; nothing else does."""

from collections.abc import Mapping
from typing import Any

import pytest

from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    STARTS,
    Start,
    bring,
    cancelled,
    claim,
    claim_one,
    dead,
    enqueue,
    make_dead,
    new,
    row_of,
    settle,
    succeeded,
)


async def prune(
    store: Store,
    *,
    finished_before: int = 0,
    by_task: Mapping[str, int] | None = None,
    died_before: int = 0,
    keep_finished: int = 1_000_000,
    limit: int = 500,
) -> int:
    """Prune one slice; by default nothing is past its time."""
    return await store.jobs.prune(
        finished_before=finished_before,
        by_task=by_task or {},
        died_before=died_before,
        keep_finished=keep_finished,
        limit=limit,
    )


async def finish(store: Store, *ends: int, task: str = "work") -> list[str]:
    """Store jobs that succeeded at the given instants; return their ids."""
    await enqueue(store, *[new(task) for _ in ends])
    jobs = await claim(store, tasks=[task])
    await settle(store, *[succeeded(job, at=end) for job, end in zip(jobs, ends, strict=True)])
    return [job.id for job in jobs]


async def kept(store: Store, ids: list[str]) -> list[int]:
    """Return the places of the ids that are still there."""
    return [n for n, id in enumerate(ids) if await store.jobs.get(id) is not None]


@pytest.mark.parametrize("start", STARTS)
async def test_prune_leaves_what_is_not_past_its_time(store: Store, start: Start) -> None:
    specimen = await bring(store, start)
    end = NOW if specimen.row.finished_at is None else specimen.row.finished_at
    assert await prune(store, finished_before=end, died_before=end) == 0
    assert await store.jobs.get(specimen.row.id) == specimen.row


@pytest.mark.parametrize(
    ("times", "gone"),
    [
        ({"finished_before": NOW + HOUR}, {"succeeded", "cancelled", "expired"}),
        ({"died_before": NOW + HOUR}, {"dead"}),
        (
            {"finished_before": NOW + HOUR, "died_before": NOW + HOUR},
            {"succeeded", "cancelled", "expired", "dead"},
        ),
    ],
)
@pytest.mark.parametrize("start", STARTS)
async def test_prune_takes_each_kind_by_its_own_time(
    store: Store, start: Start, times: dict[str, Any], gone: set[str]
) -> None:
    specimen = await bring(store, start)
    assert await prune(store, **times) == (1 if start in gone else 0)
    assert (await store.jobs.get(specimen.row.id) is None) == (start in gone)


async def test_prune_takes_the_attempts_along_and_no_others(store: Store) -> None:
    job, letter = await claim_one(store), await make_dead(store)
    other = await claim_one(store)
    await settle(store, succeeded(job), succeeded(other, at=NOW + HOUR))
    assert await prune(store, finished_before=NOW + 1, died_before=NOW + 1) == 2
    assert await store.jobs.attempts(job.seq) == []
    assert await store.jobs.attempts(letter.seq) == []
    assert len(await store.jobs.attempts(other.seq)) == 1


async def test_prune_goes_slice_by_slice_from_the_oldest(store: Store) -> None:
    ids = await finish(store, *[NOW + n * SECOND for n in range(5)])
    pruned = []
    for _ in range(4):
        pruned.append(await prune(store, finished_before=NOW + 5 * SECOND, limit=2))
        left = await kept(store, ids)
        assert left == list(range(5))[-len(left) :] if left else True
    assert pruned == [2, 2, 1, 0]


async def test_prune_in_slices_takes_jobs_and_dead_letters_alike(store: Store) -> None:
    await finish(store, NOW, NOW, NOW)
    for _ in range(3):
        await make_dead(store)
    pruned = [
        await prune(store, finished_before=NOW + 1, died_before=NOW + 1, limit=2) for _ in range(4)
    ]
    assert pruned == [2, 2, 2, 0]


async def test_prune_of_a_task_with_its_own_retention_goes_by_that(store: Store) -> None:
    short = await finish(store, NOW, NOW + HOUR, task="short")
    long = await finish(store, NOW, NOW + HOUR, task="long")
    plain = await finish(store, NOW, NOW + HOUR)
    total = await prune(
        store,
        finished_before=NOW + MINUTE,
        by_task={"short": NOW + 2 * HOUR, "long": NOW - HOUR},
    )
    assert total == 3
    assert await kept(store, short) == []
    assert await kept(store, long) == [0, 1]
    assert await kept(store, plain) == [1]


async def test_prune_with_many_retentions_keeps_to_the_slice(store: Store) -> None:
    for task in ("a", "b", "c"):
        await finish(store, NOW, NOW, NOW, task=task)
    times = dict.fromkeys(("a", "b", "c"), NOW + 1)
    assert [await prune(store, by_task=times, limit=4) for _ in range(4)] == [4, 4, 1, 0]


async def test_prune_of_surplus_keeps_the_newest(store: Store) -> None:
    ids = await finish(store, *[NOW + n for n in range(6)])
    await bring(store, "running")
    letter = await make_dead(store)
    assert await prune(store, keep_finished=4) == 2
    assert await kept(store, ids) == [2, 3, 4, 5]
    assert await prune(store, keep_finished=4) == 0
    assert await prune(store, keep_finished=0, limit=3) == 3
    assert await prune(store, keep_finished=0, limit=3) == 1
    assert (await row_of(store, letter.id)).state == "dead"


async def test_prune_of_surplus_that_ended_at_one_instant_keeps_as_many_as_asked(
    store: Store,
) -> None:
    """A batch is cancelled, expired or settled at one instant: all of it is the newest, and some of it stays."""
    ids = await finish(store, *[NOW] * 6)
    assert await prune(store, keep_finished=4) == 2
    assert await kept(store, ids) == [2, 3, 4, 5]


async def test_prune_with_time_and_surplus_at_once_fills_its_slice(store: Store) -> None:
    """A slice that is not full means that nothing is left to prune."""
    ids = await finish(store, *[NOW + n for n in range(10)])
    pruned = await prune(store, finished_before=NOW + 3, keep_finished=2, limit=5)
    assert pruned == 5
    assert await kept(store, ids) == [5, 6, 7, 8, 9]
    assert await prune(store, finished_before=NOW + 3, keep_finished=2, limit=5) == 3
    assert await kept(store, ids) == [8, 9]


async def test_prune_of_surplus_ignores_dead_letters_and_waiting_jobs(store: Store) -> None:
    await enqueue(store, new(queue="mail"), new(queue="mail", run_at=NOW + HOUR))
    job = await claim_one(store)
    await settle(store, cancelled(job))
    await make_dead(store)
    assert await prune(store, keep_finished=1) == 0
    assert await prune(store, keep_finished=0) == 1
    assert len((await store.jobs.list(Filter(), before=None, limit=10)).rows) == 2


async def test_prune_takes_letters_that_were_replayed_with_other_arguments(store: Store) -> None:
    letter = await make_dead(store)
    again = new(replay_of=letter.id)
    await store.dead_letters.replay_edited(letter.id, again)
    assert await prune(store, died_before=NOW + 1) == 1
    assert (await row_of(store, again.id)).state == "queued"


async def test_prune_spares_a_letter_that_died_again(store: Store) -> None:
    letter = await make_dead(store, at=NOW)
    await store.dead_letters.replay(letter.id, now=NOW)
    (job,) = await claim(store)
    await settle(store, dead(job, at=NOW + HOUR))
    assert await prune(store, died_before=NOW + MINUTE) == 0
