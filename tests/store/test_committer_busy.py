"""Outcomes and calls that another open transaction holds, until it ends or the committer closes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobrunner.core.errors import StoreBusy, StoreError
from jobrunner.core.model import Filter
from jobrunner.store import busy, gathered
from jobrunner.store.committer import Committer
from tests.support.engine import soon
from tests.support.factories import WORKER, claim_one, new, row_of, succeeded
from tests.support.faulty import FaultyStore


@pytest.fixture
async def store(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyStore]:
    monkeypatch.setattr(busy, "PAUSE_S", 0.01)
    store = FaultyStore(tmp_db)
    await store.open()
    yield store
    await store.close()


async def rounds(store: FaultyStore, many: int) -> None:
    """Wait for more rounds."""
    last = len(store.rounds) + many
    while len(store.rounds) < last:
        store.entered.clear()
        await soon(store.entered.wait())


async def test_F16_busy_outcome_is_written_again_after_a_pause_and_the_others_at_once(
    store: FaultyStore, committer: Committer, caplog: pytest.LogCaptureFixture
) -> None:
    held, free = await claim_one(store), await claim_one(store)
    store.held.add(held.seq)
    committer.settle(succeeded(held, '"late"'))
    committer.settle(succeeded(free))
    await rounds(store, 3)
    assert (await row_of(store, held.id)).state == "running"
    assert (await row_of(store, free.id)).state == "succeeded"
    assert "delays the ends of 1 attempt(s)" in caplog.text
    await committer.submit([new()])
    assert not committer._idle.is_set(), "one is not written yet"
    store.held.clear()
    await soon(committer.flushed())
    assert (await row_of(store, held.id)).result == '"late"'
    assert committer.error is None


async def test_F16_close_waits_for_a_busy_outcome(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.start()
    held = await claim_one(store)
    store.held.add(held.seq)
    committer.settle(succeeded(held))
    await rounds(store, 1)
    closing = asyncio.create_task(committer.close())
    await rounds(store, 2)
    assert not closing.done()
    store.held.clear()
    await soon(closing)
    assert (await row_of(store, held.id)).state == "succeeded"


async def test_F16_close_gives_a_busy_outcome_up_after_some_tries(
    store: FaultyStore, caplog: pytest.LogCaptureFixture
) -> None:
    committer = Committer(store)
    committer.start()
    held = await claim_one(store)
    store.held.add(held.seq)
    committer.settle(succeeded(held))
    await soon(committer.close())
    assert len(store.rounds) >= busy.LAST_TRIES
    assert (await row_of(store, held.id)).state == "running"
    assert "their jobs run again" in caplog.text


async def test_F16_busy_outcome_of_a_worker_that_was_found_dead_is_dropped(
    store: FaultyStore, committer: Committer
) -> None:
    held = await claim_one(store)
    store.held.add(held.seq)
    committer.settle(succeeded(held))
    await rounds(store, 1)
    committer.drop(WORKER)
    store.held.clear()
    await committer.submit([new()])
    await soon(committer.flushed())
    assert (await row_of(store, held.id)).state == "running"


# -- calls ---------------------------------------------------------------------------------------------


async def test_F16_call_that_is_held_is_stored_once_it_is_free_and_the_others_at_once(
    store: FaultyStore, committer: Committer
) -> None:
    free, held = [new()], [new(), new()]
    store.held_ids.add(held[1].id)
    waiting = committer.submit(held)
    await soon(committer.submit(free))
    await rounds(store, 2)
    assert not waiting.done()
    store.held_ids.clear()
    assert [one.created for one in await soon(waiting)] == [True, True]
    queued = Filter(state="queued")
    rows = (await store.jobs.list(queued, before=None, limit=9)).rows
    assert {row.id for row in rows} == {job.id for job in (*free, *held)}


async def test_F16_call_that_stays_held_is_busy_after_a_while_and_nothing_of_it_is_stored(
    store: FaultyStore, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathered, "PATIENCE_S", 0.05)
    held = [new(), new()]
    store.held_ids.add(held[1].id)
    with pytest.raises(StoreBusy):
        await soon(committer.submit(held))
    assert len(store.rounds) > 1
    assert [await store.jobs.get(job.id) for job in held] == [None, None]


async def test_F16_call_whose_caller_is_cancelled_while_it_is_held_is_not_stored(
    store: FaultyStore, committer: Committer
) -> None:
    held = new()
    store.held_ids.add(held.id)
    waiting = committer.submit([held])
    await rounds(store, 2)
    waiting.cancel()
    await asyncio.wait([waiting])
    store.held_ids.clear()
    await soon(committer.flushed())
    assert await store.jobs.get(held.id) is None


async def test_F16_close_refuses_a_call_that_is_held(store: FaultyStore) -> None:
    committer = Committer(store)
    committer.start()
    held = new()
    store.held_ids.add(held.id)
    waiting = committer.submit([held])
    await rounds(store, 2)
    await soon(committer.close())
    with pytest.raises(StoreError):
        await waiting
    assert await store.jobs.get(held.id) is None
