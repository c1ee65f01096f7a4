"""Dead letters: moved whole, found again, replayed once, replayed with other arguments, deleted."""

import asyncio

import pytest

from jobrunner.core.errors import AlreadyReplayed, JobNotFound, KeyTaken
from jobrunner.core.fingerprint import fingerprint
from jobrunner.core.ids import new_id
from jobrunner.core.model import Enqueue, Enqueued, Filter, JobRow
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.conftest import StartPeer
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    WORKER,
    claim,
    claim_one,
    dead,
    enqueue,
    make_dead,
    new,
    released,
    retry,
    row_of,
    settle,
    succeeded,
    worker_row,
)


def rich() -> Enqueue:
    return new(
        "mail.send",
        queue="mail",
        args='{"to":"a@b.c"}',
        priority=4,
        key="welcome:7",
        expires_at=NOW + HOUR,
        max_attempts=9,
        timeout=SECOND,
        tag="shop",
        replay_of=new_id(NOW),
    )


async def test_bury_moves_the_job_with_every_column_and_its_attempts(store: Store) -> None:
    job = await claim_one(store, rich())
    await settle(store, retry(job, NOW + SECOND))
    (job,) = await claim(store, "mail", tasks=["mail.send"], now=NOW + SECOND)
    before = await row_of(store, job.id)
    await settle(store, dead(job, "not_retryable", at=NOW + MINUTE))

    letter = await row_of(store, job.id)
    assert letter == before._replace(
        state="dead",
        finished_at=NOW + MINUTE,
        reason="not_retryable",
        error_type="ValueError",
        error="no luck",
        traceback="Traceback: no luck",
        fingerprint=fingerprint("mail.send", "ValueError", "no luck", "Traceback: no luck"),
    )
    assert [one.outcome for one in await store.jobs.attempts(letter.seq)] == ["failed", "failed"]
    assert (await store.dead_letters.list(Filter(), before=None, limit=10)).rows == [letter]
    assert (await store.jobs.list(Filter(), before=None, limit=10)).rows == []


async def test_replay_brings_the_job_back_under_its_id_with_fresh_attempts(store: Store) -> None:
    letter = await make_dead(store, rich())
    made = await store.dead_letters.replay(letter.id, now=NOW + HOUR)
    assert made == Enqueued(
        letter.id, True, "mail.send", "mail", "queued", NOW, NOW + HOUR, attempt=0
    )
    assert await row_of(store, letter.id) == letter._replace(
        state="queued",
        run_at=NOW + HOUR,
        attempt=0,
        started_at=None,
        first_started_at=None,
        finished_at=None,
        expires_at=None,  # it has long passed: the replay would expire at once
        replays=1,
        reason=None,
        error_type=None,
        error=None,
        traceback=None,
        fingerprint=None,
    )
    assert (await store.dead_letters.list(Filter(), before=None, limit=10)).rows == []
    (again,) = await claim(store, "mail", tasks=["mail.send"], now=NOW + HOUR)
    assert (again.id, again.attempt, again.first_started_at) == (letter.id, 1, NOW + HOUR)


async def test_replay_keeps_the_history(store: Store) -> None:
    letter = await make_dead(store)
    for replays in (1, 2, 3):
        await store.dead_letters.replay(letter.id, now=NOW)
        (job,) = await claim(store)
        await settle(store, dead(job))
        assert (await row_of(store, letter.id)).replays == replays
    assert [one.lease for one in await store.jobs.attempts(letter.seq)] == [1, 2, 3, 4]
    assert [one.attempt for one in await store.jobs.attempts(letter.seq)] == [1, 1, 1, 1]


async def test_replay_of_what_is_no_dead_letter_raises_job_not_found(store: Store) -> None:
    job = await claim_one(store)
    for id in (job.id, new_id(NOW)):
        with pytest.raises(JobNotFound, match=id):
            await store.dead_letters.replay(id, now=NOW)
    assert (await row_of(store, job.id)).state == "running"


async def test_H7_replay_by_two_at_once_replays_once(store: Store, peer: StartPeer) -> None:
    other = peer().opened()
    for _ in range(5):
        letter = await make_dead(store)
        other.begin("dead_letters.replay", letter.id, now=NOW)
        mine = (
            await asyncio.gather(
                store.dead_letters.replay(letter.id, now=NOW), return_exceptions=True
            )
        )[0]
        try:
            theirs = other.answer()
        except JobNotFound as error:
            theirs = error
        assert sorted(map(_done, (mine, theirs))) == [False, True]
        assert (await row_of(store, letter.id)).replays == 1
        (job,) = await claim(store)
        await settle(store, succeeded(job))


def _done(answer: object) -> bool:
    if isinstance(answer, Enqueued):
        return True
    assert isinstance(answer, JobNotFound)
    return False


async def test_replay_whose_key_is_taken_raises_and_leaves_the_letter(store: Store) -> None:
    letter = await make_dead(store, new(key="key"))
    (holder,) = await enqueue(store, new(key="key"))
    with pytest.raises(KeyTaken, match=holder.id):
        await store.dead_letters.replay(letter.id, now=NOW)
    assert await row_of(store, letter.id) == letter
    await store.jobs.cancel(holder.id, now=NOW)
    assert (await store.dead_letters.replay(letter.id, now=NOW)).created


# -- with other arguments --------------------------------------------------------------------


async def test_replay_edited_stores_a_new_job_and_links_both_ways(store: Store) -> None:
    letter = await make_dead(store, new(args='{"to":"wrong"}', key="key"))
    job = new(args='{"to":"right"}', key="key", replay_of=letter.id)
    made = await store.dead_letters.replay_edited(letter.id, job)
    assert (made.id, made.created, made.state) == (job.id, True, "queued")
    assert await row_of(store, letter.id) == letter._replace(replayed_as=job.id)
    fresh = await row_of(store, job.id)
    assert (fresh.args, fresh.replay_of, fresh.state) == (job.args, letter.id, "queued")
    assert await store.jobs.attempts(fresh.seq) == []
    assert len(await store.jobs.attempts(letter.seq)) == 1


async def test_replay_edited_takes_the_letter_out_of_lists_and_counts(store: Store) -> None:
    letter = await make_dead(store)
    await store.dead_letters.replay_edited(letter.id, new(replay_of=letter.id))
    assert (await store.dead_letters.list(Filter(), before=None, limit=10)).rows == []
    assert (await store.dead_letters.count(Filter(), cap=10)).number == 0
    done = await store.dead_letters.replay_all(Filter(), before=None, now=NOW, limit=10)
    assert (done.replayed, done.conflicts) == (0, 0)


async def test_replay_after_an_edited_one_raises_already_replayed(store: Store) -> None:
    letter = await make_dead(store)
    job = new(replay_of=letter.id)
    await store.dead_letters.replay_edited(letter.id, job)
    with pytest.raises(AlreadyReplayed, match=job.id):
        await store.dead_letters.replay(letter.id, now=NOW)
    another = new(replay_of=letter.id)
    with pytest.raises(AlreadyReplayed, match=job.id):
        await store.dead_letters.replay_edited(letter.id, another)
    assert await store.jobs.get(another.id) is None


async def test_replay_edited_of_what_is_no_dead_letter_stores_nothing(store: Store) -> None:
    job = new()
    with pytest.raises(JobNotFound):
        await store.dead_letters.replay_edited(new_id(NOW), job)
    assert await store.jobs.get(job.id) is None


async def test_replay_edited_whose_key_is_taken_stores_nothing(store: Store) -> None:
    letter = await make_dead(store, new(key="key"))
    (holder,) = await enqueue(store, new(key="key"))
    job = new(key="key", replay_of=letter.id)
    with pytest.raises(KeyTaken, match=holder.id):
        await store.dead_letters.replay_edited(letter.id, job)
    assert await store.jobs.get(job.id) is None
    assert await row_of(store, letter.id) == letter


async def test_H7_replay_edited_by_two_at_once_replays_once(store: Store, peer: StartPeer) -> None:
    other = peer().opened()
    letter = await make_dead(store)
    mine, theirs = new(replay_of=letter.id), new(replay_of=letter.id)
    other.begin("dead_letters.replay_edited", letter.id, theirs)
    (first,) = await asyncio.gather(
        store.dead_letters.replay_edited(letter.id, mine), return_exceptions=True
    )
    try:
        second = other.answer()
    except AlreadyReplayed as error:
        second = error
    answers = [first, second]
    assert sum(isinstance(one, Enqueued) for one in answers) == 1
    assert sum(isinstance(one, AlreadyReplayed) for one in answers) == 1
    stored = [job.id for job in (mine, theirs) if await store.jobs.get(job.id)]
    assert stored == [(await row_of(store, letter.id)).replayed_as]


# -- by filter ------------------------------------------------------------------------------------


async def bury(store: Store, *jobs: Enqueue, at: int = NOW) -> list[JobRow]:
    """Store jobs and let them die in the order given."""
    await enqueue(store, *jobs)
    for job in jobs:
        (claimed,) = await claim(store, job.queue, tasks=[job.task], slots=1)
        await settle(store, dead(claimed, at=at))
    return [await row_of(store, job.id) for job in jobs]


async def test_replay_all_goes_slice_by_slice_from_the_last_that_died(store: Store) -> None:
    letters = await bury(store, *[new() for _ in range(5)])
    slices, cursor = [], None
    while True:
        done = await store.dead_letters.replay_all(Filter(), before=cursor, now=NOW + HOUR, limit=2)
        states = [(await row_of(store, one.id)).state for one in letters]
        slices.append((done.replayed, states.count("dead")))
        cursor = done.cursor
        if cursor is None:
            break
    assert slices == [(2, 3), (2, 1), (1, 0)]
    replayed = await claim(store, now=NOW + HOUR)
    assert {(job.id, job.attempt, job.run_at) for job in replayed} == {
        (one.id, 1, NOW + HOUR) for one in letters
    }


async def test_replay_all_counts_those_whose_key_is_taken_and_goes_on(store: Store) -> None:
    await bury(store, new(key="a"))
    await bury(store, new(key="a"), new(key="b"), new())
    await enqueue(store, new(key="b"))
    done = await store.dead_letters.replay_all(Filter(), before=None, now=NOW, limit=10)
    # Of two letters with one key the one that died last comes back, and then holds the key.
    assert (done.replayed, done.conflicts, done.cursor) == (2, 2, None)
    left = (await store.dead_letters.list(Filter(), before=None, limit=10)).rows
    assert [one.key for one in left] == ["b", "a"]


async def test_replay_all_with_conflicts_in_each_slice_still_ends(store: Store) -> None:
    await bury(store, *[new(key=f"k{n}") for n in range(5)])
    await enqueue(store, *[new(key=f"k{n}") for n in range(5)])
    cursor, slices = None, 0
    while True:
        done = await store.dead_letters.replay_all(Filter(), before=cursor, now=NOW, limit=2)
        assert done.replayed == 0
        slices += 1
        cursor = done.cursor
        if cursor is None:
            break
    assert slices == 3


async def test_replay_all_replays_what_the_filter_means_and_no_more(store: Store) -> None:
    wanted = await make_dead(store, new("work", queue="mail", tag="shop"), at=NOW + HOUR)
    others = [
        await make_dead(store, new("play", queue="mail", tag="shop"), at=NOW + HOUR),
        await make_dead(store, new("work", tag="shop"), at=NOW + HOUR),
        await make_dead(store, new("work", queue="mail"), at=NOW + HOUR),
        await make_dead(store, new("work", queue="mail", tag="shop"), at=NOW + HOUR - 1),
        await make_dead(store, new("work", queue="mail", tag="shop"), at=NOW + 2 * HOUR),
    ]
    where = Filter(
        task="work",
        queue="mail",
        reason="exhausted",
        tag="shop",
        since=NOW + HOUR,
        until=NOW + 2 * HOUR,
    )
    done = await store.dead_letters.replay_all(where, before=None, now=NOW + 3 * HOUR, limit=100)
    assert done.replayed == 1
    assert (await row_of(store, wanted.id)).state == "queued"
    assert {(await row_of(store, one.id)).state for one in others} == {"dead"}


# -- deletion, and burial without an attempt -----------------------------------------------------


async def test_delete_removes_the_letter_and_its_history(store: Store) -> None:
    letter = await make_dead(store)
    kept = await make_dead(store)
    assert await store.dead_letters.delete(letter.id) is True
    assert await store.jobs.get(letter.id) is None
    assert await store.jobs.attempts(letter.seq) == []
    assert await store.dead_letters.delete(letter.id) is False
    assert len(await store.jobs.attempts(kept.seq)) == 1


async def test_delete_of_a_job_leaves_it(store: Store) -> None:
    (made,) = await enqueue(store, new())
    assert await store.dead_letters.delete(made.id) is False
    assert (await row_of(store, made.id)).state == "queued"


async def test_D17_bury_waiting_takes_those_due_for_too_long_slice_by_slice(store: Store) -> None:
    old = [new("gone", run_at=NOW - MINUTE - n) for n in range(5)]
    spared = [
        new("gone", run_at=NOW - MINUTE + 1),
        new("gone", run_at=NOW + HOUR),
        new("gone", queue="mail", run_at=NOW - HOUR),
        new("work", run_at=NOW - HOUR),
    ]
    await enqueue(store, *old, *spared)
    buried: list[str] = []
    for expected in (2, 2, 1, 0):
        ids = await store.dead_letters.bury_waiting(
            "default",
            "gone",
            due_before=NOW - MINUTE + 1,
            reason="unknown_task",
            error="nobody knows it",
            now=NOW,
            limit=2,
        )
        assert len(ids) == expected
        buried += ids
    assert sorted(buried) == sorted(job.id for job in old)
    letter = await row_of(store, buried[0])
    assert (letter.state, letter.reason, letter.error) == (
        "dead",
        "unknown_task",
        "nobody knows it",
    )
    assert (letter.finished_at, letter.attempt, letter.args) == (NOW, 0, "{}")
    assert {(await row_of(store, job.id)).state for job in spared} == {"queued", "scheduled"}


async def test_D17_bury_waiting_keeps_the_attempts_there_were(store: Store) -> None:
    job = await claim_one(store, new("gone"))
    await settle(store, released(job))
    (id,) = await store.dead_letters.bury_waiting(
        "default",
        "gone",
        due_before=NOW + 1,
        reason="unknown_task",
        error="nobody knows it",
        now=NOW,
        limit=9,
    )
    assert [one.outcome for one in await store.jobs.attempts((await row_of(store, id)).seq)] == [
        "released"
    ]
    await store.dead_letters.replay(id, now=NOW)
    (again,) = await claim(store, tasks=["gone"])
    assert (again.id, again.lease) == (job.id, 2)


async def test_bury_waiting_spares_jobs_of_a_task_that_some_worker_knows(store: Store) -> None:
    """In a rolling deploy the worker that knows the task joins while an older one takes it for unknown."""
    await enqueue(store, job := new("fresh"), new("gone"))
    await store.workers.join(worker_row(tasks={"fresh": None}), lambda: None)

    async def bury(task: str) -> int:
        ids = await store.dead_letters.bury_waiting(
            "default", task, due_before=NOW + 1, reason="unknown_task", error="", now=NOW, limit=9
        )
        return len(ids)

    assert (await bury("fresh"), await bury("gone")) == (0, 1)
    assert (await row_of(store, job.id)).state == "queued"
    await store.workers.leave(WORKER, now=NOW)
    assert await bury("fresh") == 1


async def test_bury_waiting_of_nothing_returns_nothing(store: Store) -> None:
    assert (
        await store.dead_letters.bury_waiting(
            "default", "gone", due_before=NOW, reason="unknown_task", error="", now=NOW, limit=9
        )
        == []
    )
    await store.write(Round(NOW))
