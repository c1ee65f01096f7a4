"""Storing jobs: what is acknowledged is there, whole, in the order given."""

import asyncio
from collections.abc import Iterator, Mapping

import pytest

from jobrunner.core.errors import StoreError
from jobrunner.core.ids import new_id
from jobrunner.core.model import Claim, Enqueued, Filter, JobRow
from jobrunner.store.protocol import Store
from jobrunner.store.round import Round
from tests.conformance.rigs import Rig
from tests.support.factories import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    WORKER,
    claim,
    claim_of,
    enqueue,
    new,
    row_of,
)


async def test_enqueue_with_every_option_stores_every_field(store: Store) -> None:
    job = new(
        "mail.send",
        queue="mail",
        args='{"to":"a@b.c"}',
        run_at=NOW + MINUTE,
        priority=-3,
        key="welcome:7",
        expires_at=NOW + HOUR,
        max_attempts=9,
        timeout=30 * SECOND,
        tag="shop",
        replay_of=new_id(NOW),
    )
    (made,) = await enqueue(store, job)
    assert made == Enqueued(
        job.id, True, "mail.send", "mail", "scheduled", NOW, NOW + MINUTE, attempt=0
    )
    row = await row_of(store, job.id)
    assert row == JobRow(
        seq=row.seq,
        id=job.id,
        task="mail.send",
        queue="mail",
        state="scheduled",
        args='{"to":"a@b.c"}',
        created_at=NOW,
        run_at=NOW + MINUTE,
        attempt=0,
        priority=-3,
        key="welcome:7",
        tag="shop",
        expires_at=NOW + HOUR,
        max_attempts=9,
        timeout=30 * SECOND,
        started_at=None,
        first_started_at=None,
        finished_at=None,
        result=None,
        result_omitted=None,
        cancel_requested=False,
        crashes=0,
        replays=0,
        replay_of=job.replay_of,
    )
    assert await store.jobs.attempts(row.seq) == []


@pytest.mark.parametrize(
    ("run_at", "state"), [(NOW - DAY, "queued"), (NOW, "queued"), (NOW + 1, "scheduled")]
)
async def test_enqueue_is_queued_when_due_and_scheduled_before(
    store: Store, run_at: int, state: str
) -> None:
    (made,) = await enqueue(store, new(run_at=run_at))
    assert made.state == state
    assert (await row_of(store, made.id)).state == state


async def test_E2_enqueue_whose_round_comes_after_the_clock_stepped_back_is_queued(
    store: Store,
) -> None:
    (made,) = await enqueue(store, new(), now=NOW - HOUR)
    assert made.state == "queued"
    assert [job.id for job in await claim(store, now=NOW - HOUR)] == [made.id]


async def test_enqueue_of_many_answers_one_for_each_in_order(store: Store) -> None:
    jobs = [new(args=f'{{"n":{n}}}', key=f"k{n}" if n % 3 else None) for n in range(50)]
    made = await enqueue(store, *jobs)
    assert [one.id for one in made] == [job.id for job in jobs]
    assert all(one.created for one in made)


@pytest.mark.parametrize("keyed", [{0}, {1}, {0, 2}, {1, 3}])
async def test_enqueue_of_many_with_and_without_key_are_as_old_as_their_place(
    store: Store, keyed: set[int]
) -> None:
    """Age decides the claim order among equals, so the order given is the order in which they run."""
    jobs = [new(key=f"k{n}" if n in keyed else None) for n in range(4)]
    await enqueue(store, *jobs)
    assert [job.id for job in await claim(store)] == [job.id for job in jobs]


async def test_enqueue_then_open_again_finds_it(rig: Rig) -> None:
    job = new(run_at=NOW + HOUR)
    await enqueue(rig.store, job)
    before = await row_of(rig.store, job.id)
    await rig.close()
    await rig.open()
    assert await row_of(rig.store, job.id) == before


async def test_get_of_an_unknown_id_returns_none(store: Store) -> None:
    assert await store.jobs.get(new_id(NOW)) is None


class BrokenSlots(Mapping[str, int]):
    """Free slots that cannot be read: the round fails in its last step, when all else is done."""

    def __getitem__(self, key: str) -> int:
        raise NotImplementedError

    def __len__(self) -> int:
        raise RuntimeError("broken")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("broken")


async def test_write_that_fails_in_its_last_step_stores_nothing(store: Store) -> None:
    broken = Claim(WORKER, BrokenSlots(), frozenset({"work"}), suspects=True)
    with pytest.raises(RuntimeError, match="broken"):
        await store.write(Round(NOW, enqueues=[new(), new(key="key")], claim=broken))
    assert (await store.jobs.list(Filter(), before=None, limit=10)).rows == []
    await enqueue(store, new())


async def test_enqueue_whose_caller_is_cancelled_is_not_undone(store: Store) -> None:
    job = new()
    writing = asyncio.create_task(store.write(Round(NOW, enqueues=[job])))
    started = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(started.set_result, None)
    await started
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await enqueue(store, new())
    assert (await row_of(store, job.id)).state == "queued"


@pytest.mark.parametrize("size", [1 << 20, 5 << 20], ids=["1 MiB", "5 MiB"])
async def test_enqueue_with_large_arguments_keeps_every_byte(store: Store, size: int) -> None:
    args = '{"text":"' + "ä" * (size // 2) + '"}'
    (made,) = await enqueue(store, new(args=args))
    assert (await row_of(store, made.id)).args == args
    (claimed,) = await claim(store)
    assert claimed.args == args


async def test_F4_enqueue_with_a_nul_in_the_arguments_keeps_it(store: Store) -> None:
    args = '{"text":"a\\u0000b"}'
    (made,) = await enqueue(store, new(args=args))
    assert (await row_of(store, made.id)).args == args


async def test_F4_enqueue_with_a_bare_nul_keeps_it_or_says_that_it_cannot(store: Store) -> None:
    """JSON has none, since it is escaped; a text of PostgreSQL can have none."""
    args = '{"raw":"c\0d"}'
    written = await store.write(Round(NOW, enqueues=[new(args=args), new()]))
    made, other = written.enqueued
    assert isinstance(other, Enqueued)
    if isinstance(made, StoreError):
        assert "0x00" in str(made)
    else:
        assert (await row_of(store, made.id)).args == args


async def test_enqueue_of_the_same_id_twice_stores_it_once_and_says_so(store: Store) -> None:
    """A caller that does not know the outcome of an enqueue may repeat it."""
    job = new()
    await enqueue(store, job)
    written = await store.write(Round(NOW, enqueues=[job]))
    assert isinstance(written.enqueued[0], StoreError)
    assert job.id in str(written.enqueued[0])
    assert len((await store.jobs.list(Filter(), before=None, limit=10)).rows) == 1


async def test_enqueue_of_the_same_id_and_key_twice_stores_it_once(store: Store) -> None:
    job = new(key="key")
    await enqueue(store, job)
    (again,) = await enqueue(store, job)
    assert (again.id, again.created) == (job.id, False)


async def test_enqueue_that_no_worker_claims_waits(store: Store) -> None:
    (made,) = await enqueue(store, new("unheard-of", queue="nowhere"))
    written = await store.write(Round(NOW + DAY, promote_due=True, claim=claim_of()))
    assert written.claimed == []
    assert (await row_of(store, made.id)).state == "queued"
