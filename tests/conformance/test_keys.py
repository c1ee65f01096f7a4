"""Keys: per task, one unfinished job holds a key, and everything that ends it frees the key."""

from typing import Any

import pytest

from jobrunner.core.model import Filter
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.conftest import StartPeer
from tests.support.factories import (
    EXPIRY,
    HOUR,
    MINUTE,
    NOW,
    STARTS,
    STATE_OF,
    Start,
    bring,
    claim,
    claim_one,
    enqueue,
    new,
    retry,
    row_of,
    settle,
    succeeded,
)


async def test_enqueue_with_a_taken_key_stores_nothing_and_returns_the_holder(
    store: Store,
) -> None:
    holder = new(key="key", run_at=NOW + MINUTE, queue="mail")
    await enqueue(store, holder)
    (again,) = await enqueue(store, new(key="key", args='{"other":1}'))
    assert again.created is False
    assert (again.id, again.state, again.queue, again.run_at) == (
        holder.id,
        "scheduled",
        "mail",
        NOW + MINUTE,
    )
    assert len((await store.jobs.list(Filter(), before=None, limit=10)).rows) == 1


@pytest.mark.parametrize("start", STARTS)
async def test_enqueue_with_the_key_of_a_job_returns_it_while_it_is_unfinished(
    store: Store, start: Start
) -> None:
    specimen = await bring(store, start)
    unfinished = STATE_OF[start] in {"scheduled", "queued", "running", "blocked"}
    rival = new(key="key")
    (made,) = await enqueue(store, rival)
    assert made.created is not unfinished
    assert made.id == (specimen.row.id if unfinished else rival.id)
    if unfinished:
        assert made.state == specimen.row.state
        assert made.attempt == specimen.row.attempt


async def test_enqueue_with_one_key_twice_in_one_round_stores_the_first(store: Store) -> None:
    first, second = new(key="key"), new(key="key")
    made = await enqueue(store, first, second, new(key="other"))
    assert [(one.id, one.created) for one in made[:2]] == [(first.id, True), (first.id, False)]
    assert made[2].created


async def test_enqueue_with_the_key_of_another_task_is_stored(store: Store) -> None:
    made = await enqueue(store, new("work", key="key"), new("play", key="key"))
    assert [one.created for one in made] == [True, True]


async def test_enqueue_without_a_key_never_meets_another(store: Store) -> None:
    made = await enqueue(store, new(), new(), new(key=None))
    assert [one.created for one in made] == [True, True, True]


async def test_enqueue_in_the_round_that_settles_the_holder_gets_the_key(store: Store) -> None:
    """Outcomes come first: a caller that waited for the end of the job may enqueue it again."""
    job = await claim_one(store, new(key="key"))
    rival = new(key="key")
    written = await _round(store, outcomes=[succeeded(job)], enqueues=[rival])
    assert (written.id, written.created) == (rival.id, True)


async def test_enqueue_in_the_round_that_retries_the_holder_is_refused(store: Store) -> None:
    job = await claim_one(store, new(key="key"))
    made = await _round(store, outcomes=[retry(job, NOW + HOUR)], enqueues=[new(key="key")])
    assert (made.id, made.created, made.state) == (job.id, False, "scheduled")


async def test_enqueue_in_the_round_that_expires_the_holder_gets_the_key(store: Store) -> None:
    await bring(store, "queued")
    rival = new(key="key", created_at=EXPIRY)
    made = await _round(store, now=EXPIRY, promote_due=True, enqueues=[rival])
    assert (made.id, made.created) == (rival.id, True)


async def _round(store: Store, now: int = NOW, **fields: Any) -> Any:
    (made,) = (await store.write(Round(now, **fields))).enqueued
    return made


async def test_F16_enqueue_with_one_key_in_two_processes_at_once_stores_one(
    store: Store, peer: StartPeer
) -> None:
    other = peer().opened()
    for n in range(20):
        mine, theirs = new(key=f"key{n}"), new(key=f"key{n}")
        other.begin("write", Round(NOW, enqueues=[theirs]))
        (here,) = await enqueue(store, mine)
        (there,) = other.answer().enqueued
        assert sorted((here.created, there.created)) == [False, True]
        assert here.id == there.id == (mine.id if here.created else theirs.id)


async def test_F15_enqueue_with_one_key_and_other_arguments_keeps_the_first(store: Store) -> None:
    first, second = new(key="key", args='{"n":1}'), new(key="key", args='{"n":2}')
    (stored,) = await enqueue(store, first)
    (other,) = await enqueue(store, second)
    assert (stored.created, other.created) == (True, False)
    assert other.id == first.id
    assert (await row_of(store, first.id)).args == first.args
    assert await store.jobs.get(second.id) is None


async def test_key_is_free_again_after_the_whole_life(store: Store) -> None:
    for _ in range(3):
        job = await claim_one(store, new(key="key"))
        await settle(store, retry(job))
        (job,) = await claim(store)
        await settle(store, succeeded(job))
