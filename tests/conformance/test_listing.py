"""Lists: what a filter means, pages that stay where they are, counts that stop."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from jobrunner.core.model import Filter, JobRow
from jobrunner.store.job_protocol import Count, RowPage
from jobrunner.store.protocol import Store
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
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


async def ids(
    page: Callable[..., Awaitable[RowPage]], where: Filter | None = None, limit: int = 100
) -> list[str]:
    """Return the ids on all pages."""
    found: list[str] = []
    before = None
    while True:
        one = await page(where or Filter(), before=before, limit=limit)
        assert len(one.rows) <= limit
        found += [row.id for row in one.rows]
        before = one.next
        if before is None:
            return found
        assert len(one.rows) == limit or not one.complete


async def test_jobs_are_listed_newest_first_and_dead_letters_are_not_among_them(
    store: Store,
) -> None:
    letter = await make_dead(store)
    running = await claim_one(store)
    waiting = new(run_at=NOW - HOUR)
    await enqueue(store, waiting)
    assert await ids(store.jobs.list) == [waiting.id, running.id]
    assert await ids(store.dead_letters.list) == [letter.id]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(), {"a", "b", "c", "d"}),
        (Filter(task="work"), {"a", "b", "d"}),
        (Filter(queue="mail"), {"b", "d"}),
        (Filter(state="queued"), {"b", "c"}),
        (Filter(state="succeeded"), {"d"}),
        (Filter(state="expired"), set()),
        (Filter(tag="t"), {"c", "d"}),
        (Filter(key="k"), {"a", "c"}),
        (Filter(since=NOW + MINUTE), {"b", "c"}),
        (Filter(until=NOW + MINUTE), {"a", "d"}),
        (Filter(since=NOW, until=NOW + 1), {"d"}),
        (Filter(task="work", queue="mail", tag="t"), {"d"}),
        (Filter(task="work' OR 1=1 --"), set()),
    ],
)
async def test_jobs_with_a_filter_lists_what_it_means(
    store: Store, where: Filter, expected: set[str]
) -> None:
    done = new("work", queue="mail", tag="t")
    await enqueue(store, done)
    (job,) = await claim(store, "mail")
    await settle(store, succeeded(job))
    named = {
        "a": new("work", key="k", created_at=NOW + 1, run_at=NOW + HOUR),
        "b": new("work", queue="mail", created_at=NOW + MINUTE),
        "c": new("play", key="k", tag="t", created_at=NOW + MINUTE),
        "d": done,
    }
    await enqueue(store, named["a"], named["b"], named["c"], now=NOW + MINUTE)
    found = await ids(store.jobs.list, where)
    assert sorted(found) == sorted(named[name].id for name in expected)
    assert await store.jobs.count(where, cap=100) == Count(len(expected))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Filter(), {"a", "b", "c"}),
        (Filter(task="work"), {"a", "c"}),
        (Filter(queue="mail"), {"b"}),
        (Filter(reason="buried"), {"c"}),
        (Filter(tag="t"), {"a"}),
        (Filter(key="k"), {"b"}),
        (Filter(since=NOW + MINUTE), {"b", "c"}),
        (Filter(until=NOW + MINUTE), {"a"}),
    ],
)
async def test_dead_letters_with_a_filter_lists_and_counts_what_it_means(
    store: Store, where: Filter, expected: set[str]
) -> None:
    named = {
        "a": await make_dead(store, new(tag="t"), at=NOW),
        "b": await make_dead(store, new("play", queue="mail", key="k"), at=NOW + MINUTE),
    }
    job = await claim_one(store)
    await settle(store, dead(job, "buried", at=NOW + HOUR))
    named["c"] = (
        await store.dead_letters.list(Filter(reason="buried"), before=None, limit=1)
    ).rows[0]
    found = await ids(store.dead_letters.list, where)
    assert sorted(found) == sorted(named[name].id for name in expected)
    assert await store.dead_letters.count(where, cap=100) == Count(len(expected))


async def test_dead_letters_are_listed_last_died_first(store: Store) -> None:
    await enqueue(store, *[new() for _ in range(3)])
    jobs = list(await claim(store))
    order = [jobs[1], jobs[2], jobs[0]]
    for job in order:
        await settle(store, dead(job))
    assert await ids(store.dead_letters.list) == [job.id for job in reversed(order)]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 7, 100])
async def test_pages_of_any_size_list_everything_once(store: Store, limit: int) -> None:
    jobs = [new() for _ in range(6)]
    await enqueue(store, *jobs)
    assert await ids(store.jobs.list, limit=limit) == [job.id for job in reversed(jobs)]
    for job in await claim(store):
        await settle(store, dead(job))
    assert await ids(store.dead_letters.list, limit=limit) == [job.id for job in reversed(jobs)]


async def test_a_page_that_is_just_full_is_the_last(store: Store) -> None:
    await enqueue(store, new(), new())
    assert (await store.jobs.list(Filter(), before=None, limit=2)).next is None


async def test_pages_stay_where_they_are_while_jobs_come_and_go(store: Store) -> None:
    jobs = [new() for _ in range(6)]
    await enqueue(store, *jobs)
    first = await store.jobs.list(Filter(), before=None, limit=2)
    await enqueue(store, new(), new())
    await store.jobs.cancel(jobs[3].id, now=NOW)
    (gone,) = await claim(store, slots=1)
    await settle(store, dead(gone))
    second = await store.jobs.list(Filter(), before=first.next, limit=2)
    third = await store.jobs.list(Filter(), before=second.next, limit=2)
    assert _ids(first.rows) == [jobs[5].id, jobs[4].id]
    assert _ids(second.rows) == [jobs[3].id, jobs[2].id]
    assert _ids(third.rows) == [jobs[1].id]


async def test_pages_of_dead_letters_stay_where_they_are_while_some_are_replayed(
    store: Store,
) -> None:
    letters = [await make_dead(store) for _ in range(6)]
    first = await store.dead_letters.list(Filter(), before=None, limit=2)
    await store.dead_letters.replay(letters[5].id, now=NOW)
    await store.dead_letters.replay(letters[3].id, now=NOW)
    (job,) = await claim(store, slots=1)
    await settle(store, dead(job))
    rest = await store.dead_letters.list(Filter(), before=first.next, limit=10)
    assert _ids(rest.rows) == [letters[2].id, letters[1].id, letters[0].id]


def _ids(rows: Sequence[JobRow]) -> list[str]:
    return [row.id for row in rows]


async def test_count_dead_letters_stops_at_the_cap(store: Store) -> None:
    for _ in range(5):
        await make_dead(store)
    found = [await store.dead_letters.count(Filter(), cap=cap) for cap in (1, 4, 5, 6)]
    assert found == [Count(1, False), Count(4, False), Count(5, False), Count(5)]


async def test_count_of_jobs_stops_at_the_cap_and_leaves_out_dead_letters(store: Store) -> None:
    await make_dead(store)
    await enqueue(store, *[new() for _ in range(5)])
    found = [await store.jobs.count(Filter(), cap=cap) for cap in (1, 4, 5, 6)]
    assert found == [Count(1, False), Count(4, False), Count(5, False), Count(5)]


async def test_list_of_jobs_leaves_arguments_and_results_out(store: Store) -> None:
    done = await claim_one(store, new(args='{"a":1}'))
    await settle(store, succeeded(done, "2"))
    (row,) = (await store.jobs.list(Filter(), before=None, limit=9)).rows
    whole = await row_of(store, done.id)
    assert (whole.args, whole.result) == ('{"a":1}', "2")
    assert row == whole._replace(args="", result=None)


async def test_list_of_dead_letters_holds_what_a_replay_would_run_with(store: Store) -> None:
    letter = await make_dead(store, new(args='{"a":1}'))
    (row,) = (await store.dead_letters.list(Filter(), before=None, limit=9)).rows
    assert row == letter


async def test_lists_of_an_empty_store_are_empty(store: Store) -> None:
    assert await store.jobs.list(Filter(), before=None, limit=10) == RowPage([], None)
    assert await store.dead_letters.list(Filter(), before=None, limit=10) == RowPage([], None)
    assert await store.jobs.queues() == []
    assert await store.jobs.waiting_tasks() == []
    assert await store.workers.list() == []
