"""``max_waiting``: a queue takes so many jobs that wait, and refuses whole calls beyond."""

from collections import Counter

import pytest

from jobrunner.core.errors import QueueFull
from jobrunner.core.limits import Limit, LimitName
from jobrunner.core.model import Enqueue, Enqueued, chained
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.conftest import StartPeer
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    claim,
    dead,
    enqueue,
    make_dead,
    new,
    settle,
    succeeded,
)


@pytest.fixture
async def small(store: Store) -> Store:
    """A store whose queue ``default`` takes three jobs that wait."""
    await store.limits.set(LimitName("queue", "default"), Limit(max_waiting=3), now=NOW)
    return store


async def store_calls(store: Store, *calls: list[Enqueue]) -> list[list[str]]:
    """Store calls in one round; return the kinds of answers of each."""
    jobs = [job for call in calls for job in call]
    written = await store.write(Round(NOW, enqueues=jobs, calls=[len(call) for call in calls]))
    answers = iter(type(one).__name__ for one in written.enqueued)
    return [[next(answers) for _ in call] for call in calls]


async def waiting(store: Store) -> int:
    return sum(queue.queued for queue in await store.jobs.queues())


async def test_a_call_is_stored_as_a_whole_or_not_at_all(small: Store) -> None:
    calls = [[new(), new()], [new(), new()], [new()], [new()]]
    assert await store_calls(small, *calls) == [
        ["Enqueued"] * 2,
        ["QueueFull"] * 2,
        ["Enqueued"],
        ["QueueFull"],
    ]
    assert await waiting(small) == 3


async def test_several_processes_fill_a_queue_to_the_last_place(
    store: Store, peer: StartPeer
) -> None:
    await store.limits.set(LimitName("queue", "default"), Limit(max_waiting=31), now=NOW)
    others = [one.opened() for one in [peer(), peer(), peer()]]
    for other in others:
        for _ in range(10):
            other.begin("write", Round(NOW, enqueues=[new(), new(), new()], calls=[3]))
    calls = [other.answer().enqueued for other in others for _ in range(10)]
    kinds = Counter(tuple(type(one).__name__ for one in call) for call in calls)
    assert kinds == {("Enqueued",) * 3: 10, ("QueueFull",) * 3: 20}
    assert await waiting(store) == 30


async def test_without_calls_each_job_and_each_chain_is_one(small: Store) -> None:
    chain = chained([new(), new("play")])
    written = await small.write(Round(NOW, enqueues=[new(), new(), *chain, new()]))
    assert [type(one) for one in written.enqueued] == [Enqueued] * 4 + [QueueFull]


async def test_other_queues_take_jobs_meanwhile(small: Store) -> None:
    await enqueue(small, new(), new(), new())
    await enqueue(small, new(queue="mail"))
    # A call with jobs for both is refused as a whole.
    assert await store_calls(small, [new(queue="mail"), new()]) == [["QueueFull"] * 2]


async def test_jobs_that_are_due_count_and_others_do_not(small: Store) -> None:
    await enqueue(small, *[new(run_at=NOW + HOUR) for _ in range(5)])
    await enqueue(small, new(), new(lane="work[1]"))
    running = await claim(small, slots=1)
    await enqueue(small, new(), new())
    assert await store_calls(small, [new()], [new(run_at=NOW + HOUR)]) == [
        ["QueueFull"],
        ["Enqueued"],
    ]
    await settle(small, *map(succeeded, running))
    await claim(small, slots=1)
    assert await store_calls(small, [new()], [new()]) == [["Enqueued"], ["QueueFull"]]


async def test_a_taken_key_is_answered_by_its_holder(small: Store) -> None:
    (holder, *_) = await enqueue(small, new(key="k"), new(), new())
    (again,) = await enqueue(small, new(key="k"))
    assert (again.id, again.created) == (holder.id, False)


async def test_refused_jobs_leave_nothing_behind(small: Store) -> None:
    await enqueue(small, new(), new())
    assert await store_calls(small, [new(key="k"), new(lane="work[1]")]) == [["QueueFull"] * 2]
    assert await small.limits.lanes(cap=9) == (0, 0, 0)
    (made,) = await enqueue(small, new(key="k"))
    assert made.created


async def test_jobs_of_successes_and_replays_are_stored_all_the_same(small: Store) -> None:
    letter = await make_dead(small)
    (running,) = await enqueue(small, new())
    (job,) = await claim(small)
    assert job.id == running.id
    await enqueue(small, new(), new(), new())
    more = succeeded(job)._replace(enqueues=[new(), new()])
    assert (await settle(small, more)).stale == []
    await small.dead_letters.replay(letter.id, now=NOW)
    assert await waiting(small) == 6
    with pytest.raises(QueueFull, match="max_waiting=6"):
        await enqueue(small, new())


async def test_a_due_retry_counts_and_is_never_refused(small: Store) -> None:
    await enqueue(small, new())
    (job,) = await claim(small)
    await enqueue(small, new(), new())
    await settle(small, dead(job))
    await enqueue(small, new(run_at=NOW + MINUTE), new(run_at=NOW + MINUTE))
    await small.write(Round(NOW + HOUR, promote_due=True))
    assert await waiting(small) == 4
    with pytest.raises(QueueFull):
        await enqueue(small, new())
